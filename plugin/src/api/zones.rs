//! `meridian.v1.Zones`.

use super::{Tables, prefix};
use crate::proto::v1::{ListRequest, LookupRequest, Prefix, zones_server::Zones};
use futures_util::stream::{self, BoxStream, StreamExt};
use std::{net::IpAddr, sync::Arc};
use tonic::{Request, Response, Status};

/// Answers from the table in force.
#[derive(Debug)]
pub struct ZonesService(pub Tables);

#[tonic::async_trait]
impl Zones for ZonesService {
    type ListStream = BoxStream<'static, Result<Prefix, Status>>;

    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<Prefix>, Status> {
        let ip = request.into_inner().ip;
        let address: IpAddr =
            ip.parse().map_err(|_| Status::invalid_argument(format!("`{ip}` is not an IPv4 or IPv6 address")))?;
        let table = Arc::clone(&self.0.borrow());
        let found = table.lookup(address).map(|(network, placement)| prefix(&network, placement));
        found.map(Response::new).ok_or_else(|| Status::not_found(format!("{ip} is in no prefix")))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let table = Arc::clone(&self.0.borrow());
        let all: Vec<Prefix> = table.prefixes().map(|(network, placement)| prefix(network, placement)).collect();
        Ok(Response::new(stream::iter(all).map(Ok).boxed()))
    }
}
