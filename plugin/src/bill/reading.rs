//! Reads a bill of any format.

use super::{
    amount::BillUnit,
    aws,
    charges::Charges,
    gcp,
    invalid::{BadBill, InvalidLine},
    unpacked,
};
use std::io::{BufRead, Read};

/// The format of a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The Cost and Usage Report of AWS, as CSV. The unit is that of its amounts.
    AwsCur(BillUnit),
    /// The detailed export of Google Cloud's billing, as JSON lines or CSV.
    GcpBilling,
}

/// Reads a bill, and adds its transfer between zones to `charges`; `file` is the name in errors.
///
/// # Errors
/// The bill can't be read, or a line is not of the format.
pub fn read(format: Format, from: impl Read, file: &str, charges: &mut Charges) -> Result<(), BadBill> {
    let refused = |(line, reason)| BadBill { file: file.to_owned(), line, reason };
    let mut text = unpacked::text(from).map_err(|reason| refused((1, reason)))?;
    match format {
        Format::AwsCur(unit) => aws::read(text, unit, charges),
        Format::GcpBilling => match text.fill_buf().map(<[u8]>::first) {
            Ok(Some(b'{')) => gcp::read_lines(text, charges),
            Ok(Some(b'[')) => Err((1, InvalidLine::JsonList)),
            Ok(_) => gcp::read_table(text, charges),
            Err(error) => Err((1, error.into())),
        },
    }
    .map_err(refused)
}
