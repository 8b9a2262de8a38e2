//! Runs the kernel programs on built packets, with `BPF_PROG_TEST_RUN`.
use meridian::datapath::{Datapath, Options};
#[test]
fn loads() {
    let d = match Datapath::load(Options::default()) {
        Ok(d) => d,
        Err(e) => panic!("{e}"),
    };
    println!("{:?}", d.matrix().unwrap());
}
