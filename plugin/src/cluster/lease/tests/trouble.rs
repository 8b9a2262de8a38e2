//! The Lease while its API server is slow or flaps: a leader all the time if answers arrive at all, never two.

use super::*;

/// A server that loses requests and answers, by chance: the way of one replica to it.
#[derive(Clone)]
struct Flapping {
    server: Server,
    random: Arc<Mutex<Random>>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

impl tower_service::Service<Request<Body>> for Flapping {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let mut random = self.random.lock().unwrap();
        // The server is quick, slow, or slower than a replica waits.
        let mut delay = || {
            let most = [50, 3000, 9000][random.below(3) as usize];
            Duration::from_millis(random.below(most))
        };
        let (before, after) = (delay(), delay());
        let (is_refused, is_lost) = (random.below(4) == 0, random.below(5) == 0);
        let server = self.server.clone();
        Box::pin(async move {
            let method = request.method().as_str().to_owned();
            let body = request.into_body().collect_bytes().await.unwrap();
            let answered = tokio::spawn(async move {
                // A request that has left is carried out, though its client gives up meanwhile.
                sleep(before).await;
                if is_refused {
                    return (503, json!({"kind": "Status", "status": "Failure", "message": "no", "code": 503}));
                }
                server.0.lock().unwrap().answer(&method, &body).unwrap()
            });
            let (code, value) = answered.await.unwrap();
            if is_lost {
                std::future::pending::<()>().await;
            }
            sleep(after).await;
            Ok(Response::builder().status(code).body(value.to_string().into_bytes().into()).unwrap())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_five_seconds_for_each_answer_has_a_leader_all_the_time() {
    // Whether a request is carried out at its start, in between or at its end.
    for (before, after) in [(0, 5000), (2500, 2500), (5000, 0)] {
        let server = Server::default();
        server.0.lock().unwrap().delays = (Duration::from_millis(before), Duration::from_millis(after));
        let replica = Replica::start(&server);
        assert!(replica.time_until(true).await <= SECOND * 12);
        let standby = Replica::start(&server);
        let requests = server.requests();
        for _ in 0..6000 {
            sleep(SECOND / 10).await;
            assert!(replica.is_leader() && !standby.is_leader(), "{before} {after}");
        }
        assert!(server.requests() - requests <= 2 * 600 / 5, "both wait for the answers");
        // The leader dies without a word, and the other follows it.
        replica.run.abort();
        assert!(standby.time_until(true).await <= SECOND * 40);
        assert_eq!(server.spec()["leaseTransitions"], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_server_flaps_there_are_never_two_leaders_and_then_there_is_one() {
    let mut led = 0;
    for seed in 0..6 {
        let server = Server::default();
        let flapping = |seed: u64| Flapping { server: server.clone(), random: Arc::new(Mutex::new(Random(seed))) };
        let replicas: Vec<Replica> = (0..3).map(|n| Replica::with(flapping(10 * seed + n))).collect();
        for _ in 0..3000 {
            sleep(SECOND / 10).await;
            let leaders = replicas.iter().filter(|replica| replica.is_leader()).count();
            assert!(leaders <= 1, "seed {seed}");
            led += leaders;
        }
        // Each replica asks once in two seconds, and a little more often after an answer that was late.
        assert!(server.requests() <= 3 * 300, "seed {seed}: {}", server.requests());
        replicas.iter().for_each(|replica| replica.run.abort());
        let last = Replica::start(&server);
        last.time_until(true).await;
    }
    assert!(led > 6 * 300, "a leader for a good part of the time: {led}");
}
