//! The agent: the program of one node. It counts the node's traffic, follows the zone table and the devices, serves
//! flows and metrics, and reports to the controller.

mod announcements;
mod controller_zones;
mod counting;
mod device_follower;
mod error;
mod history;
mod peers;
mod place;
mod reporting;
mod run;
mod settings;
mod start;
mod unload;
mod zone_source;

pub use error::Error;
pub use run::run;
pub use settings::{Settings, ZoneSource};
pub use unload::{AgentArtifacts, stay, unload};
