//! `meridian whatif`: the traffic of a service as it would have been with a preference, or with other endpoints.

use super::{Failure, ask, print, usage};
use crate::{
    advice::{Change, Form},
    statement,
};
use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

/// What would be changed, and who is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The service and its preference: NAMESPACE/NAME=PreferSameZone, =PreferClose or =none.
    #[arg(value_name = "SERVICE=VALUE")]
    change: String,
    /// Endpoints that there would be, by zone: ZONE=NUMBER, several with commas.
    #[arg(long, value_name = "ZONE=NUMBER", default_value = "")]
    endpoints: String,
    /// The HTTP port of a controller.
    #[arg(long, env = "MERIDIAN_REPORT_SERVER", value_name = "HOST:PORT", default_value = "127.0.0.1:9981")]
    server: String,
    /// The beginning of the traffic: a time as 2026-11-25T13:00:00Z, a day as 2026-11-25, or how long ago as 24h or 7d.
    /// Of whole hours.
    #[arg(long, value_name = "TIME", default_value = "7d")]
    from: String,
    /// The end, in the same form.
    #[arg(long, value_name = "TIME", default_value = "now")]
    to: String,
    /// The form of the result: table or json.
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: String,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut texts: BTreeMap<String, String> =
        BTreeMap::from([("from".to_owned(), args.from.clone()), ("to".to_owned(), args.to.clone())]);
    // Bad questions are refused here, whoever would be asked.
    statement::Question::parse(&texts, now).map_err(|error| match error {
        empty @ statement::BadQuestion::Empty { .. } => usage(empty),
        flag => usage(format!("--{flag}")),
    })?;
    Change::parse(&args.change, &args.endpoints).map_err(usage)?;
    if !matches!(Form::of_name(&args.output), Some(Form::Table | Form::Json)) {
        return Err(usage("--output: it is neither table nor json"));
    }
    texts.insert("change".to_owned(), args.change.clone());
    texts.insert("endpoints".to_owned(), args.endpoints.clone());
    texts.insert("output".to_owned(), args.output.clone());
    print(&ask::answer(&args.server, "/api/v1/whatif", &texts)?)
}
