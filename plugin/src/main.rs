//! The command `meridian`.

fn main() {}
