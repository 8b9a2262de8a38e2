//! Tests of advice: scenarios in tables, and random clusters.

mod bounds;
mod cluster;
mod properties;
mod scenarios;
mod whatif;

use super::*;
use crate::{catalogue::Catalogue, cost::PriceTable};
