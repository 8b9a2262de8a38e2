//! `meridian.v1.Zones`.

use super::services::zones_server::Zones;
use crate::{
    identity::Index,
    proto::v1::{ListRequest, LookupRequest, LookupResponse, Prefix},
    wire::{endpoint_message, prefix},
    zones::SharedTable,
};
use futures_util::stream::{self, BoxStream, StreamExt};
use ipnetwork::IpNetwork;
use std::{net::IpAddr, sync::Arc, time::SystemTime};
use tonic::{Request, Response, Status};

/// Answers from the table and the endpoints in force.
#[derive(Debug)]
pub struct ZonesService {
    /// The table.
    pub table: SharedTable,
    /// The endpoints behind addresses.
    pub index: Arc<Index>,
}

/// The number of prefixes read under one lock: the table can change in between.
const PART: usize = 1000;

#[tonic::async_trait]
impl Zones for ZonesService {
    type ListStream = BoxStream<'static, Result<Prefix, Status>>;

    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<LookupResponse>, Status> {
        let ip = request.into_inner().ip;
        let address: IpAddr = ip
            .parse()
            .map(|address: IpAddr| address.to_canonical())
            .map_err(|_| Status::invalid_argument(format!("`{ip}` is not an IPv4 or IPv6 address")))?;
        let endpoint = self.index.at(address, SystemTime::now()).map(|endpoint| endpoint_message(address, &endpoint));
        let table = self.table.read();
        let found = table.lookup(address).map(|(network, placement)| prefix(&network, placement));
        let answer = found.map(|prefix| LookupResponse { prefix: Some(prefix), endpoint });
        answer.map(Response::new).ok_or_else(|| Status::not_found(format!("{ip} is in no prefix")))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let parts =
            stream::unfold((self.table.clone(), None), async |(table, last): (SharedTable, Option<IpNetwork>)| {
                let part: Vec<_> =
                    table.read().after(last).take(PART).map(|(at, placement)| (*at, placement.clone())).collect();
                let last = part.last()?.0;
                Some((stream::iter(part), (table, Some(last))))
            });
        Ok(Response::new(parts.flatten().map(|(network, placement)| Ok(prefix(&network, &placement))).boxed()))
    }
}
