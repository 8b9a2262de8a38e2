//! Two replicas over a connection, and a leader that sends nonsense.

use super::{
    Copying, HistoryService,
    services::history_server::{History, HistoryServer},
};
use crate::{
    archive::Limits,
    historian::sample::{Sample, block},
    history::Span,
    leader::{Leader, Role},
    link::{Authenticate, RefusedToken, Settings},
    proto::v1::{BlockSpan, GetBlockRequest, GetBlockResponse, ListBlocksRequest, ListBlocksResponse},
};
use futures_util::future::BoxFuture;
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};

const HOUR: u32 = Span::HOUR;
const NOW: u64 = 10 * HOUR as u64;

fn hour(number: u64) -> Span {
    Span::hour_of(number * u64::from(HOUR))
}

/// Serves a history, and returns the address.
async fn serve(history: impl History) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Server::builder().add_service(HistoryServer::new(history));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn copying(sample: &Sample, leader: &str) -> Copying {
    let leader = Leader { name: "r".into(), feed: leader.into(), api: String::new() };
    Copying {
        settings: Settings {
            node: String::new(),
            server: leader.feed.clone(),
            authority: None,
            server_name: None,
            token: None,
        },
        role: watch::Sender::new(Role::Standby(Some(leader))).subscribe(),
        historian: Arc::clone(&sample.historian),
    }
}

/// Lets a token in, or nobody.
struct Guard(bool);

impl Authenticate for Guard {
    fn check(&self, _: Option<String>, _: Option<IpAddr>) -> BoxFuture<'_, Result<Option<String>, RefusedToken>> {
        let refused = || RefusedToken::PermissionDenied("not a replica".to_owned());
        let result = self.0.then_some(None).ok_or_else(refused);
        Box::pin(std::future::ready(result))
    }
}

fn service(sample: &Sample, lets_in: bool) -> HistoryService {
    HistoryService { historian: Arc::clone(&sample.historian), replicas: Arc::new(Guard(lets_in)) }
}

#[tokio::test]
async fn a_replica_that_starts_has_the_hours_of_the_leader() {
    let whole: Vec<_> = (0..10).map(|at| block(hour(at), 1 << at, HOUR)).collect();
    let leader = Sample::new("leader", &whole, (Limits::default(), NOW));
    // It was there for a part of the fourth hour, and the leader for a part of none.
    let starting = Sample::new("starting", &[block(hour(3), 5, 100)], (Limits::default(), NOW));
    let (address, mut compared) = (serve(service(&leader, true)).await, BTreeSet::new());
    let copying = copying(&starting, &address);
    copying.copy(&copying.settings, &mut compared).await.unwrap();
    for at in 0..10 {
        assert_eq!(starting.seen(hour(at)), Some((1 << at, HOUR)));
    }
    assert_eq!((starting.historian.size().0, compared.len()), (10, 10));
    copying.copy(&copying.settings, &mut compared).await.unwrap();
    assert_eq!(starting.historian.tally().copied.load(Ordering::Relaxed), 10);
}

#[tokio::test]
async fn a_standby_copies_by_itself_and_ends_when_it_is_asked_to() {
    let leader = Sample::new("leading", &[block(hour(1), 8, HOUR)], (Limits::default(), NOW));
    let starting = Sample::new("standby", &[], (Limits::default(), NOW));
    let (shutdown, address) = (CancellationToken::new(), serve(service(&leader, true)).await);
    let (sender, role) = watch::channel(Role::Standby(None));
    let copying = Copying { role, ..copying(&starting, "127.0.0.1:1") };
    let running = tokio::spawn(copying.run(shutdown.clone()));
    sender.send_replace(Role::Standby(Some(Leader { name: "r".into(), feed: address, api: String::new() })));
    let copied = async {
        while starting.seen(hour(1)).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), copied).await.unwrap();
    shutdown.cancel();
    timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
}

#[tokio::test]
async fn nobody_without_a_replica_s_token_gets_blocks() {
    let leader = Sample::new("guarded", &[block(hour(1), 8, HOUR)], (Limits::default(), NOW));
    let service = service(&leader, false);
    let list = service.list_blocks(Request::new(ListBlocksRequest {})).await.unwrap_err();
    let span = Some(BlockSpan { start: 3600, seconds: HOUR });
    let get = service.get_block(Request::new(GetBlockRequest { span })).await.unwrap_err();
    assert_eq!([list.code(), get.code()], [tonic::Code::PermissionDenied; 2]);
}

/// A leader that answers with these spans, and with this file for each of them.
struct Foreign {
    spans: Vec<BlockSpan>,
    file: Vec<u8>,
}

#[tonic::async_trait]
impl History for Foreign {
    async fn list_blocks(&self, _: Request<ListBlocksRequest>) -> Result<Response<ListBlocksResponse>, Status> {
        Ok(Response::new(ListBlocksResponse { spans: self.spans.clone() }))
    }

    async fn get_block(&self, _: Request<GetBlockRequest>) -> Result<Response<GetBlockResponse>, Status> {
        Ok(Response::new(GetBlockResponse { block: self.file.clone() }))
    }
}

/// The blocks that a replica keeps of a foreign leader, the refused ones, and the error.
async fn kept(name: &str, spans: &[(u64, u32)], file: Vec<u8>) -> (usize, u64, Option<String>) {
    let starting = Sample::new(name, &[], (Limits::default(), NOW));
    let spans = spans.iter().map(|(start, seconds)| BlockSpan { start: *start, seconds: *seconds }).collect();
    let address = serve(Foreign { spans, file }).await;
    let copying = copying(&starting, &address);
    let error = copying.copy(&copying.settings, &mut BTreeSet::new()).await.err();
    let refused = starting.historian.tally().uncopied.load(Ordering::Relaxed);
    (starting.historian.size().0, refused, error.map(|error| error.to_string()))
}

#[tokio::test]
async fn blocks_that_are_damaged_or_of_another_time_are_refused_and_the_others_are_kept() {
    let file = block(hour(1), 8, HOUR).encode();
    assert_eq!(kept("two", &[(3600, HOUR), (7200, HOUR)], file.clone()).await, (1, 1, None));
    for at in [0, 10, 50, file.len() - 1] {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert_eq!(kept("flipped", &[(3600, HOUR)], changed).await, (0, 1, None), "{at}");
    }
    assert_eq!(kept("empty", &[(3600, HOUR)], Vec::new()).await, (0, 1, None));
    assert_eq!(kept("cut", &[(3600, HOUR)], file[..file.len() / 2].to_vec()).await, (0, 1, None));
}

#[tokio::test]
async fn spans_that_are_none_or_not_over_are_not_asked_for_and_a_list_has_a_limit() {
    let nonsense = [(3601, HOUR), (3600, 7), (0, 0), (u64::MAX, HOUR), (NOW, HOUR), (1 << 40, HOUR)];
    assert_eq!(kept("nonsense", &nonsense, Vec::new()).await, (0, 0, None));
    let many: Vec<(u64, u32)> = (0..5000).map(|at| (at * 3600, HOUR)).collect();
    let (kept_blocks, _, error) = kept("many", &many, Vec::new()).await;
    assert_eq!((kept_blocks, error.as_deref()), (0, Some("5000 blocks are more than 4096")));
    let large = vec![0; crate::history::MAX_ENCODED + 2048];
    let (kept_blocks, _, error) = kept("large", &[(3600, HOUR)], large).await;
    assert!(kept_blocks == 0 && error.as_deref().is_some_and(|error| error.starts_with("OutOfRange")), "{error:?}");
}
