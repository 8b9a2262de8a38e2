//! Files and streams for other programs: the pair log and flow logs.

mod flow_logs;
mod lines;
mod pair_log;
mod rotated;

pub use flow_logs::{FlowLog, FlowLogs, FlowLogsConfig, Output as FlowLogOutput, Outputs as FlowLogOutputs, Refused};
pub use pair_log::{Output, PairLog, PairLogTally, Pairs};
