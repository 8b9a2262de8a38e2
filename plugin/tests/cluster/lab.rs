//! An API server, a controller with exactly the role in the chart, and agents: all on the loopback of their own
//! network namespace.

use crate::{
    common::programs::program,
    common::{Scratch, meridian, ports::free_port, running::Running},
    kernel,
    objects::{Object, json_rules},
};
use ipnetwork::IpNetwork;
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use meridian::{
    api::{self, Target},
    netlab::{links::configure, namespace::Namespace},
    proto::v1::{Endpoint, StatusResponse},
};
use serde_json::json;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for a condition.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The controller's service account, and that of agents.
pub const CONTROLLER: &str = "meridian-controller";
pub const AGENT: &str = "meridian-agent";
pub const NAMESPACE: &str = "meridian";
/// The port of a test's own API server: below those that the kernel gives to connections, and in a network namespace of
/// the test.
const API_PORT: u16 = 6443;
/// How long an API server may take to start, beside others that start.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// Runs a test in a network namespace with a loopback device, on one thread.
pub fn inside<T: AsyncFnOnce(&mut Lab) + Send>(name: &str, test: T) {
    run(name, None, test);
}

/// As [`inside`], with a separate API server that has these flags.
pub fn inside_with<T: AsyncFnOnce(&mut Lab) + Send>(name: &str, flags: &'static [&'static str], test: T) {
    run(name, Some(flags), test);
}

fn run<T: AsyncFnOnce(&mut Lab) + Send>(name: &str, own: Option<&'static [&'static str]>, test: T) {
    let api = Api::here();
    let here = api.clone();
    let body = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut lab = Lab::start(name, here, own.unwrap_or_default()).await;
            test(&mut lab).await;
            lab.clean().await;
        });
    };
    if matches!(api, Api::Running(_)) {
        if own.is_some() {
            eprintln!("skipped: it needs an API server of its own");
            return;
        }
        // Tests share the running API server.
        static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        return body();
    }
    let namespace = Namespace::new(name).unwrap();
    configure(&namespace, "setting up", async |links| links.up("lo", None).await).unwrap();
    namespace.run(body).unwrap();
}

/// Waits for a condition.
pub async fn until<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(TIMEOUT, ask).await.unwrap_or_else(|| panic!("{what}: not within {TIMEOUT:?}"))
}

/// The condition, if it is there within this time.
async fn within<T>(time: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// The source of the API server.
#[derive(Clone)]
enum Api {
    /// The program of conformance/cluster.
    Program(PathBuf),
    /// A running API server.
    Running(PathBuf),
}

impl Api {
    fn here() -> Self {
        let running = env::var_os("MERIDIAN_TEST_KUBECONFIG").map(PathBuf::from);
        running.map_or_else(|| Self::Program(program("MERIDIAN_KUBERNETES")), Self::Running)
    }
}

pub struct Lab {
    pub folder: Scratch,
    server: Option<Server>,
    pub kubeconfig: PathBuf,
    pub client: Client,
    controllers: usize,
    /// The objects to delete from an API server that stays.
    pub made: RefCell<Vec<Object>>,
}

/// The API server's process.
struct Server {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    flags: &'static [&'static str],
    process: Option<Running>,
}

impl Server {
    fn start(&mut self) {
        let mut command = Command::new(&self.program);
        command.arg("standalone").arg(&self.folder).arg(self.port.to_string()).args(self.flags);
        let mut process = Running::spawn_fed(&mut command);
        // A file, so that the server never blocks on its output.
        let log = fs::File::create(self.folder.join("log")).unwrap();
        process.drain_to(log);
        self.process = Some(process);
    }
}

async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

impl Lab {
    async fn start(name: &str, api: Api, flags: &'static [&'static str]) -> Self {
        let folder = Scratch::new(&format!("cluster-{name}"));
        let (server, kubeconfig) = match api {
            Api::Running(kubeconfig) => (None, kubeconfig),
            Api::Program(program) => {
                let of_server = folder.as_ref().join("api");
                fs::create_dir_all(&of_server).unwrap();
                let mut server = Server { program, folder: of_server.clone(), port: API_PORT, flags, process: None };
                server.start();
                let kubeconfig = of_server.join("kubeconfig");
                until("the API server's kubeconfig", async || kubeconfig.exists().then_some(())).await;
                (Some(server), kubeconfig)
            }
        };
        // The file exists before it is complete; an empty one is a kubeconfig, too.
        let whole = async || Kubeconfig::read_from(&kubeconfig).ok().filter(|file| file.current_context.is_some());
        until("a whole kubeconfig", whole).await;
        let client = client(&kubeconfig).await;
        let lab = Self { folder, server, kubeconfig, client, controllers: 0, made: RefCell::default() };
        lab.is_ready().await;
        lab.set_up().await;
        lab
    }

    async fn is_ready(&self) {
        let ready = within(START_TIMEOUT, async || {
            let request = axum::http::Request::get("/readyz").body(Vec::new()).unwrap();
            self.client.request_text(request).await.ok()
        });
        if ready.await.is_none() {
            let log = self.server.as_ref().and_then(|server| fs::read_to_string(server.folder.join("log")).ok());
            let log = log.unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(40).collect();
            panic!("the API server: not within {START_TIMEOUT:?}, its log backwards:\n{}", last.join("\n"));
        }
    }

    /// Makes the accounts, and the role in the chart.
    async fn set_up(&self) {
        self.put(Object::namespace(NAMESPACE)).await;
        for account in [CONTROLLER, AGENT] {
            self.put(Object::account(NAMESPACE, account)).await;
        }
        self.set_role(|_| true).await;
        let subject = json!([{"kind": "ServiceAccount", "name": CONTROLLER, "namespace": NAMESPACE}]);
        self.put(Object::role_binding(CONTROLLER, subject.clone())).await;
        for object in Object::namespace_role(NAMESPACE, CONTROLLER, subject) {
            self.put(object).await;
        }
    }

    /// The role in the chart, limited to wanted resources.
    pub async fn set_role(&self, wanted: impl Fn(&str) -> bool) {
        self.put(Object::role(CONTROLLER, json_rules(wanted))).await;
    }

    /// Deletes the test's objects, if the API server stays.
    async fn clean(&self) {
        if self.server.is_none() {
            let made: Vec<Object> = self.made.take();
            for object in made.into_iter().rev() {
                self.forget(&object).await;
            }
        }
    }

    /// Kills the API server.
    pub fn stop_api(&mut self) {
        let server = self.server.as_mut().unwrap();
        drop(server.process.take());
    }

    /// Starts the API server again with its data.
    pub async fn start_api(&mut self) {
        self.server.as_mut().unwrap().start();
        self.is_ready().await;
    }

    /// A kubeconfig with a token of a service account.
    async fn kubeconfig_of(&self, account: &str) -> PathBuf {
        self.kubeconfig_in(NAMESPACE, account).await
    }

    /// A kubeconfig with a token of an account in another namespace.
    pub async fn kubeconfig_in(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.token_in(namespace, account, None, "").await;
        let mut file = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let user = file.auth_infos[0].auth_info.as_mut().unwrap();
        *user = serde_json::from_value(json!({ "token": token })).unwrap();
        let path = self.folder.as_ref().join(format!("kubeconfig-{account}"));
        fs::write(&path, serde_json::to_string(&file).unwrap()).unwrap();
        path
    }

    /// A client with the controller's account.
    pub async fn as_controller(&self) -> Client {
        client(&self.kubeconfig_of(CONTROLLER).await).await
    }

    /// Starts a controller. `args` are added to the required ones.
    pub async fn controller(&mut self, args: &[&str]) -> Controller {
        let feed = format!("127.0.0.1:{}", free_port());
        self.controller_at(&feed, args).await
    }

    /// Starts a controller at an address that agents follow already.
    pub async fn controller_at(&mut self, feed: &str, args: &[&str]) -> Controller {
        self.controllers += 1;
        let kubeconfig = self.kubeconfig_of(CONTROLLER).await;
        let [own, http] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
        let mut command = meridian(&["controller", "--kubeconfig", kubeconfig.to_str().unwrap()]);
        command.args(["--feed-listen", feed, "--listen", &own, "--http-listen", &http]);
        command.args(["--absent-interval", "1s", "--log-level", "info,meridian=debug"]).args(args);
        let log = self.folder.as_ref().join(format!("controller-{}.log", self.controllers));
        let mut process = Running::spawn(&mut command);
        process.drain_to(fs::File::create(&log).unwrap());
        let mut controller = Controller { process, feed: feed.to_owned(), own, http, log };
        until("the controller", async || {
            assert!(!controller.process.has_ended(), "{}", controller.log());
            controller.status().await
        })
        .await;
        controller
    }

    /// Starts an agent, on the same machine as all others.
    pub fn agent(&self, node: &str, controller: &Controller, args: &[&str]) -> Agent {
        self.agent_at(node, &controller.feed, args)
    }

    /// Starts an agent whose controller need not run.
    pub fn agent_at(&self, node: &str, feed: &str, args: &[&str]) -> Agent {
        Agent::start(self.folder.as_ref(), node, "lo", feed, args)
    }
}

/// A running controller.
pub struct Controller {
    pub process: Running,
    pub feed: String,
    pub own: String,
    pub http: String,
    log: PathBuf,
}

impl Controller {
    pub async fn status(&self) -> Option<StatusResponse> {
        api::Client::connect(Target::Tcp(self.own.clone())).await.ok()?.status().await.ok()
    }

    /// Waits until the controller has received a version of a kind, and all agents have acknowledged the result.
    pub async fn settle(&self, kind: &str, resource_version: &str, agents: usize) {
        let wanted: u64 = resource_version.parse().unwrap();
        until(&format!("{kind} {resource_version} at {agents} agents"), async || {
            let status = self.status().await?;
            let of_kind = status.kinds.iter().find(|of| of.name == kind)?;
            let seen = of_kind.resource_version.parse::<u64>().unwrap_or_default() >= wanted;
            let has = status.agents.iter().filter(|agent| agent.acknowledged >= of_kind.version).count();
            (seen && has == agents && status.agents.len() == agents).then_some(())
        })
        .await;
    }

    /// Waits until a kind's watch has this state.
    pub async fn watches(&self, kind: &str, state: &str) {
        until(&format!("{kind} is {state}"), async || {
            let status = self.status().await?;
            status.kinds.iter().any(|of| of.name == kind && of.state == state).then_some(())
        })
        .await;
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The value of a series on its metrics page.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        metric(&self.http, series).await
    }
}

/// A running agent.
pub struct Agent {
    pub process: Running,
    socket: PathBuf,
    http: String,
    log: PathBuf,
}

impl Agent {
    /// Starts an agent on the thread's node, with a subfolder of this folder.
    pub fn start(folder: &Path, node: &str, uplink: &str, feed: &str, args: &[&str]) -> Self {
        let folder = folder.join(node);
        fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("hubble.sock");
        let (state, log) = (folder.join("state"), folder.join("log"));
        let http = format!("127.0.0.1:{}", free_port());
        let mut command = meridian(&["agent", "--node", node, "--uplink", uplink, "--pair-log", "off"]);
        command.args(["--controller", feed, "--state-dir", state.to_str().unwrap()]).args(args);
        command.args(["--hubble-socket", socket.to_str().unwrap(), "--http-listen", &http]);
        if !args.contains(&"--hubble-listen") {
            command.args(["--hubble-listen", &format!("127.0.0.1:{}", free_port())]);
        }
        let mut process = Running::spawn(&mut command);
        process.drain_to(fs::File::options().append(true).create(true).open(&log).unwrap());
        Self { process, socket, http, log }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub async fn metric(&self, series: &str) -> Option<f64> {
        metric(&self.http, series).await
    }

    async fn client(&self) -> api::Client {
        until("the agent", async || api::Client::connect(Target::Unix(self.socket.clone())).await.ok()).await
    }

    /// The endpoint behind an address.
    pub async fn endpoint(&self, ip: &str) -> Option<Endpoint> {
        self.client().await.lookup(ip.into()).await.unwrap().unwrap().endpoint
    }

    /// Namespace, pod and workload of the endpoint behind an address.
    pub async fn pod(&self, ip: &str) -> String {
        self.endpoint(ip).await.map_or_else(String::new, |endpoint| {
            format!("{}/{} {} {}", endpoint.namespace, endpoint.pod, endpoint.workload_kind, endpoint.workload)
        })
    }

    /// Checks that its kernel maps hold exactly these prefixes in these zones.
    pub async fn has_exactly(&self, expected: &BTreeMap<String, String>) {
        let mut prefixes = self.client().await.list().await.unwrap();
        let mut zones = BTreeMap::new();
        while let Some(prefix) = prefixes.next().await.unwrap() {
            zones.insert(prefix.cidr, prefix.zone);
        }
        // Slots are the agent's own: one zone has one slot, and different zones have different slots.
        let mut slots: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
        let mut found = BTreeMap::new();
        for (prefix, slot) in kernel::table(self.process.id()) {
            let text = prefix.to_string();
            let zone = zones.get(&text).unwrap_or_else(|| panic!("{text} is in the kernel only")).clone();
            slots.entry(slot).or_default().insert(zone.clone());
            found.insert(prefix, zone);
        }
        let expected: BTreeMap<IpNetwork, String> =
            expected.iter().map(|(prefix, zone)| (prefix.parse().unwrap(), zone.clone())).collect();
        assert_eq!(found, expected, "found (left), expected (right)");
        let used: BTreeSet<&String> = slots.values().flatten().collect();
        assert_eq!(slots.len(), used.len(), "a slot is one zone's: {slots:?}");
        assert!(slots.get(&0).is_none_or(|zones| zones.iter().eq(["unknown"])), "{slots:?}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
    }
}

async fn metric(http: &str, series: &str) -> Option<f64> {
    use std::io::{Read, Write};
    let (http, series) = (http.to_owned(), series.to_owned());
    let ask = move || -> Option<f64> {
        let mut stream = std::net::TcpStream::connect(http).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse().ok())
    };
    // Threads of this thread are in its namespace.
    thread::spawn(ask).join().unwrap()
}
