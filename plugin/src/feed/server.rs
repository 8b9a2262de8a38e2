//! The controller's side of the feed.

use super::{
    agents::{Agents, Follower, Turns},
    body::FollowStream,
    buckets::Digest,
    services::{controller_server::Controller, feed_server::Feed},
    store::{Cursor, Position, Store},
};
use crate::{
    link::{self, Authenticate, Closed, Sender, Unchecked, check_token, handoff},
    proto::v1::{FollowRequest, FollowResponse, Hello, StatusRequest, StatusResponse, follow_request, status_response},
    wire::BUCKETS,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

/// The longest name of a node: a DNS name.
const NODE_NAME: usize = 253;
/// The time limit for an agent's hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an agent may take to read a part of its updates.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an agent that does not read keeps its turn to be sent buckets.
const TURN: Duration = Duration::from_secs(1);
/// How long an agent may take to read the reason of its stream's end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The watches of the cluster.
pub trait Watches: Send + Sync {
    /// Every kind of object, with the state of its watch.
    fn kinds(&self) -> Vec<status_response::Kind>;
}

/// The limits for agents.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The limit of agents.
    pub agents: usize,
    /// The age at which a stream is ended, so that agents spread over the replicas; each stream ends at a random age
    /// between half of it and all of it.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { agents: 10_000, age: Duration::from_secs(3600) }
    }
}

/// `meridian.v1.Feed`.
#[derive(Clone)]
pub struct FeedService {
    /// The state for agents.
    pub store: Arc<Store>,
    /// The agents that follow.
    pub agents: Arc<Agents>,
    /// Checks the tokens of agents.
    pub tokens: Arc<dyn Authenticate>,
    /// The watches of the cluster.
    pub watches: Arc<dyn Watches>,
    /// The limits for agents.
    pub limits: Limits,
    /// Ends every stream.
    pub shutdown: CancellationToken,
}

impl FeedService {
    /// Reads and checks an agent's hello.
    async fn hello(&self, request: Request<Streaming<FollowRequest>>) -> Result<(Hello, Requests), Status> {
        let node = check_token(&*self.tokens, &request).await?;
        let mut requests = Requests::of(request)?;
        let first = timeout(HELLO_TIMEOUT, requests.message()).await;
        let first = first.map_err(|_| Status::invalid_argument("no hello came in time"))??;
        let Some(FollowRequest { request: Some(follow_request::Request::Hello(hello)) }) = first else {
            return Err(Status::invalid_argument("the first message is not a hello"));
        };
        if hello.node.is_empty() || hello.node.len() > NODE_NAME {
            return Err(Status::invalid_argument("a hello names the agent's node"));
        }
        if !matches!(hello.digests.len(), 0 | DIGESTS) {
            return Err(Status::invalid_argument(format!("digests are {DIGESTS} bytes or none")));
        }
        if let Some(node) = node.filter(|node| *node != hello.node) {
            let text = format!("the token belongs to an agent on {node}, not on {}", hello.node);
            return Err(Status::permission_denied(text));
        }
        Ok((hello, requests))
    }

    fn count(&self, status: &Status) {
        let refused = &self.agents.refused;
        let counter = match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => &refused.token,
            Code::ResourceExhausted => &refused.full,
            _ => &refused.request,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

const DIGESTS: usize = BUCKETS * size_of::<Digest>();

#[tonic::async_trait]
impl Feed for FeedService {
    type FollowStream = FollowStream;

    async fn follow(&self, request: Request<Streaming<FollowRequest>>) -> Result<Response<Self::FollowStream>, Status> {
        let from = request.remote_addr().map_or_else(String::new, |address| address.to_string());
        let refuse = |status: Status| {
            self.count(&status);
            if let Some(left_out) = self.agents.refused.log.line() {
                tracing::warn!(from, code = ?status.code(), reason = status.message(), left_out, "an agent is refused");
            }
            status
        };
        let (hello, requests) = self.hello(request).await.map_err(refuse)?;
        let full =
            || refuse(Status::resource_exhausted(format!("{} agents are connected already", self.limits.agents)));
        let follower = self.agents.join(hello.node, self.limits.agents).ok_or_else(full)?;
        let (digests, _) = hello.digests.as_chunks();
        let cursor = self.store.cursor(hello.position.map(Into::into), digests);
        tracing::debug!(node = follower.agent.node, from, "an agent follows");
        // The channel's messages are shared with other streams, so a slow agent holds no memory of its own.
        let (sender, receiver) = handoff();
        tokio::spawn(self.clone().follow_to_the_end(cursor, follower, requests, sender));
        let stream = FollowStream::new(receiver);
        let mut response = Response::new(stream.clone());
        response.extensions_mut().insert(stream);
        Ok(response)
    }
}

#[tonic::async_trait]
impl Controller for FeedService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let agents = self.agents.all();
        let agents = agents.iter().map(|agent| status_response::Agent {
            node: agent.node.clone(),
            acknowledged: agent.acknowledged.load(Ordering::Relaxed),
            connected: Some(agent.connected.into()),
        });
        Ok(Response::new(StatusResponse {
            position: Some(self.store.position().into()),
            kinds: self.watches.kinds(),
            agents: agents.collect(),
        }))
    }
}

impl FeedService {
    /// Sends an agent all changes until either side ends the stream.
    async fn follow_to_the_end(self, mut cursor: Cursor, follower: Follower, mut requests: Requests, sender: Messages) {
        let age = self.limits.age.mul_f64(rand::random_range(0.5..=1.0));
        let end = tokio::select! {
            status = self.send(&mut cursor, &sender) => status,
            status = self.listen(&follower, &mut requests) => status,
            () = follower.agent.replaced.cancelled() => Some(Status::aborted("a newer stream of this node has begun")),
            () = self.shutdown.cancelled() => Some(Status::unavailable("the controller ends")),
            // An end without an error asks the agent to reconnect.
            () = sleep(age) => None,
        };
        if let Some(status) = end {
            if matches!(status.code(), Code::InvalidArgument | Code::DeadlineExceeded) {
                self.count(&status);
                let node = &follower.agent.node;
                if let Some(left_out) = self.agents.refused.log.line() {
                    tracing::warn!(node, reason = status.message(), left_out, "an agent's stream is ended");
                }
            }
            // An agent that does not read the reason in time only sees the end of the stream.
            let _ = timeout(SHUTDOWN_TIMEOUT, sender.send(Err(status))).await;
        }
    }

    /// Sends an agent the updates that it lacks; ends when the agent is gone or does not read.
    async fn send(&self, cursor: &mut Cursor, sender: &Messages) -> Option<Status> {
        let mut version = self.store.watch();
        loop {
            version.mark_unchanged();
            // Boxed: most of the time there is nothing to send, and there are thousands of agents.
            if let Err(end) = Box::pin(self.send_pending(cursor, sender)).await {
                return end;
            }
            tokio::select! {
                // The store outlives the agents' streams.
                _ = version.changed() => {}
                () = sender.closed() => return None,
            }
        }
    }

    /// Sends an agent the updates that it lacks now.
    ///
    /// # Errors
    /// The agent is gone, or does not read.
    async fn send_pending(&self, cursor: &mut Cursor, sender: &Messages) -> Result<(), Option<Status>> {
        let mut turn = Turn::default();
        loop {
            // Before the response is made: a first one lists a thousand updates, and thousands of agents may wait.
            self.begin(&mut turn, cursor, sender).await?;
            let Some(next) = cursor.next(&self.store) else { return Ok(()) };
            // The agent may be too far behind for changes.
            self.begin(&mut turn, cursor, sender).await?;
            match timeout(READ_TIMEOUT, turn.deliver(sender, next)).await {
                Ok(Ok(())) => {}
                Ok(Err(Closed)) => return Err(None),
                Err(_) => return Err(Some(Status::deadline_exceeded("the agent does not read its updates"))),
            }
        }
    }

    /// Waits for an agent's turn, if it is to be sent buckets.
    ///
    /// # Errors
    /// The agent is gone.
    async fn begin(&self, turn: &mut Turn, cursor: &Cursor, sender: &Messages) -> Result<(), Option<Status>> {
        if cursor.has_buckets() {
            return Ok(());
        }
        tokio::select! {
            () = turn.begin(&self.agents.turns) => Ok(()),
            () = sender.closed() => Err(None),
        }
    }

    /// Receives an agent's acknowledgements; ends when the agent is gone.
    async fn listen(&self, follower: &Follower, requests: &mut Requests) -> Option<Status> {
        loop {
            match requests.message().await {
                Ok(Some(FollowRequest { request: Some(follow_request::Request::Acknowledged(position)) })) => {
                    let position = Position::from(position);
                    if position.instance == self.store.position().instance {
                        follower.agent.acknowledged.store(position.version, Ordering::Relaxed);
                    }
                }
                Ok(Some(_)) => return Some(Status::invalid_argument("after its hello an agent only acknowledges")),
                Ok(None) => return None,
                Err(status) if status.code() == Code::Cancelled => return None,
                Err(status) => return Some(Status::invalid_argument(status.message())),
            }
        }
    }
}

/// An agent's messages.
type Requests = link::Messages<FollowRequest, Unchecked>;

/// The way of responses to an agent's stream.
type Messages = Sender<Result<FollowResponse, Status>>;

/// The turn of an agent to be sent buckets.
#[derive(Debug, Default)]
struct Turn {
    permit: Option<OwnedSemaphorePermit>,
    is_lost: bool,
}

impl Turn {
    /// Waits for the turn, unless it has begun, or the agent has lost it.
    async fn begin(&mut self, turns: &Turns) {
        if self.permit.is_none() && !self.is_lost {
            self.permit = Arc::clone(&turns.0).acquire_owned().await.ok();
        }
    }

    /// Sends a response. An agent that does not read it soon loses its turn, and is sent the rest beside the others.
    async fn deliver(&mut self, sender: &Messages, response: FollowResponse) -> Result<(), Closed> {
        match timeout(TURN, sender.room()).await {
            Ok(room) => room?,
            Err(_) => (self.permit, self.is_lost) = (None, true),
        }
        sender.send(Ok(response)).await
    }
}

#[cfg(test)]
mod tests;
