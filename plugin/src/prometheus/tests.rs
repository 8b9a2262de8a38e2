//! The reader against a server in the same process.

use super::*;
use crate::{
    cost::PriceTable,
    statement::{ChargeTo, Dimension, Query, Summary},
    zones::Provider,
};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// A server that answers each path with a status line and a body.
async fn server(answer: impl Fn(&str) -> (&'static str, String) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/prefix/", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut request = vec![0; 16 << 10];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let (status, body) = answer(request.split(' ').nth(1).unwrap_or_default());
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(body.as_bytes()).await;
            });
        }
    });
    url
}

fn matrix(series: &[(&str, &[(u64, u64)])]) -> String {
    let series = series.iter().map(|(labels, values)| {
        let values: Vec<String> = values.iter().map(|(time, value)| format!("[{time},\"{value}\"]")).collect();
        format!("{{\"metric\":{labels},\"values\":[{}]}}", values.join(","))
    });
    let series: Vec<String> = series.collect();
    format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{}]}}}}", series.join(","))
}

fn open(url: String) -> Server {
    Server::new(Settings { url, authority: None, headers: None }).unwrap()
}

fn aws(_: &str) -> Option<Provider> {
    Provider::new("aws")
}

async fn ask(url: String, by: &Dimension) -> Result<crate::history::Block, AskError> {
    let prices = PriceTable::default();
    let server = open(url);
    let reader = Reader { server: &server, selector: "cluster=\"a\"", prices: &prices, provider: aws };
    reader.read(by, (3600, 14_400), 10_900).await
}

/// Two nodes of AWS: 1 GB between zones over IPv4 and IPv6, and 10 bytes within one.
fn metrics(path: &str) -> (&'static str, String) {
    assert!(path.starts_with("/prefix/api/v1/query_range?query=max+by+"), "{path}");
    let zones = |node: &str, to: &str, version: u8| {
        format!(
            "{{\"node\":\"{node}\",\"source_zone\":\"us-east-1a\",\"source_region\":\"us-east-1\",\"destination_zone\":\
             \"{to}\",\"destination_region\":\"us-east-1\",\"ip_version\":\"{version}\",\"direction\":\"egress\"}}"
        )
    };
    let is_last = path.contains("start=10900");
    let body = if path.contains("start_timestamp") {
        String::new() + &matrix(&[])
    } else if path.contains("meridian_zone_bytes_total%7Bcluster%3D%22a%22%7D") {
        let values: [&[(u64, u64)]; 3] = if is_last {
            [&[(10_900, 1_000_000_500)], &[(10_900, 40)], &[(10_900, 17)]]
        } else {
            [&[(3600, 500), (7200, 400_000_500), (10_800, 900_000_500)], &[(3600, 100), (10_800, 30)], &[(3600, 7)]]
        };
        let series = [zones("n1", "us-east-1b", 4), zones("n2", "us-east-1b", 6), zones("n2", "us-east-1a", 4)];
        matrix(&[(&series[0], values[0]), (&series[1], values[1]), (&series[2], values[2])])
    } else if path.contains("meridian_namespace_bytes_total") {
        let labels =
            "{\"source_namespace\":\"shop\",\"destination_namespace\":\"(other)\",\"locality\":\"cross-zone\"}";
        let values: &[(u64, u64)] = if is_last { &[(10_900, 1_000_000_000)] } else { &[(3600, 0), (10_800, 5)] };
        matrix(&[(labels, values)])
    } else {
        matrix(&[])
    };
    ("200 OK", body)
}

#[tokio::test]
async fn a_range_is_the_growth_of_its_counters_priced_by_zone() {
    let block = ask(server(metrics).await, &Dimension::ZonePair).await.unwrap();
    let prices = PriceTable::default();
    let mut summary = Summary::new(Query::default(), &prices);
    summary.add(&block);
    let statement = summary.finish();
    // n2's counter began again: 30 and then 10 more.
    assert_eq!(statement.total.counter.bytes, 1_000_000_040);
    assert_eq!(statement.total.cost.exact(), "0.0200000008");
    let node = |name: &str| block.coverage.nodes.iter().find(|node| node.name == name).unwrap().reported_seconds;
    assert_eq!((block.coverage.recorded_seconds, node("n1"), node("n2")), (7300, 7300, 7300));
}

#[tokio::test]
async fn namespaces_have_a_price_where_all_pairs_of_their_locality_have_one() {
    let block = ask(server(metrics).await, &Dimension::Namespace).await.unwrap();
    let prices = PriceTable::default();
    let mut summary = Summary::new(Query { by: Dimension::Namespace, ..Query::default() }, &prices);
    summary.add(&block);
    let statement = summary.finish();
    let total = (statement.total.counter.bytes, statement.total.cost.exact(), statement.total.unpriced_bytes);
    assert_eq!(total, (1_000_000_000, "0.02".to_owned(), 0));
    assert_eq!(statement.coverage.unattributed_bytes, 1_000_000_000);
}

#[tokio::test]
async fn answers_of_others_are_one_line_with_what_to_do() {
    let answers: [(&'static str, String, &str); 8] = [
        (
            "200 OK",
            "<html>\n<title>Welcome</title>".into(),
            "(it begins with `<html> <title>Welcome</title>`): is a path missing",
        ),
        ("200 OK", String::new(), "(it is empty): is a path missing, such as /prometheus?"),
        (
            "200 OK",
            "{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":[]}}".into(),
            "(it is no matrix)",
        ),
        ("200 OK", "[".repeat(100_000), "(it begins with `[[["),
        ("404 Not Found", "404 page".into(), ": 404 Not Found: is a path missing, such as /prometheus?"),
        ("401 Unauthorized", String::new(), ": 401 Unauthorized: --prometheus-headers-file names a file"),
        ("302 Found", String::new(), ": 302 Found: name the address that it points to"),
        (
            "422 Unprocessable Entity",
            "{\"status\":\"error\",\"errorType\":\"execution\",\"error\":\"too many\\nsamples\"}".into(),
            ": 422 Unprocessable Entity: too manysamples: --selector names fewer series",
        ),
    ];
    for (status, body, wanted) in answers {
        let url = server(move |_| (status, body.clone())).await;
        let error = ask(url.clone(), &Dimension::ZonePair).await.unwrap_err().to_string();
        assert!(error.starts_with(&url) && error.contains(wanted) && !error.contains('\n'), "{error}");
    }
    let huge = "x".repeat(33 << 20);
    let error = ask(server(move |_| ("200 OK", huge.clone())).await, &Dimension::Region).await.unwrap_err();
    assert!(matches!(error, AskError::TooLarge(_)), "{error}");
    let error = ask("http://127.0.0.1:1".into(), &Dimension::Region).await.unwrap_err().to_string();
    assert!(error.starts_with("http://127.0.0.1:1: Connection refused"), "{error}");
}

#[test]
fn questions_beyond_the_metrics_are_refused() {
    let check = |query: Query, to: u64, is_compared: bool| {
        Reader::check(&query, (0, to), is_compared).map_err(|error| error.to_string())
    };
    let by = |by: &str| Query { by: by.parse().unwrap(), ..Query::default() };
    for good in ["zone-pair", "region", "namespace", "workload"] {
        assert_eq!(check(by(good), 3600, false), Ok(()));
    }
    for bad in ["service", "node", "label:team", "namespace-pair", "workload-pair"] {
        let error = check(by(bad), 3600, false).unwrap_err();
        assert!(error.starts_with(&format!("--by {bad}: the metrics lack")), "{error}");
    }
    let client = Query { charge: ChargeTo::Client, ..Query::default() };
    assert!(check(client, 3600, false).unwrap_err().starts_with("--charge client: no metric names"));
    assert!(check(Query::default(), 3600, true).unwrap_err().starts_with("--compare: "));
    assert!(check(Query::default(), 3600 * 10_000, false).unwrap_err().contains("hours: --from names"));
}

#[test]
fn an_address_is_a_url_with_an_authority_where_there_is_tls() {
    let of = |url: &str, authority: Option<&str>| {
        let settings = Settings { url: url.into(), authority: authority.map(Into::into), headers: None };
        Server::new(settings).map(|_| ()).map_err(|error| error.to_string())
    };
    for good in ["http://prometheus:9090", "http://mimir/prometheus", "http://[::1]:9090/"] {
        assert_eq!(of(good, None), Ok(()), "{good}");
    }
    assert_eq!(of("https://thanos", Some("ca.pem")), Ok(()));
    for bad in ["prometheus:9090", "", "ftp://p", "http://", "http://u:p@host", "http://host?x=y", "http://a b"] {
        let error = of(bad, None).unwrap_err();
        assert!(error.starts_with("--prometheus: `") && !error.contains('\n'), "{bad}: {error}");
    }
    assert!(of("https://thanos", None).unwrap_err().starts_with("--prometheus https://thanos: https needs"));
    assert!(of("http://thanos", Some("ca.pem")).unwrap_err().starts_with("--prometheus-ca: http://thanos has no TLS"));
}

#[tokio::test]
async fn headers_are_sent_over_tls_to_a_server_whose_authority_is_known() {
    use crate::link::{Admission, Files, Tls, connections};
    use tokio_util::sync::CancellationToken;
    let folder = std::env::temp_dir().join(format!("meridian-prometheus-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = |name: &str| folder.join(name);
    for name in ["server", "other"] {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(path(&format!("{name}.crt")), certified.cert.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), certified.signing_key.serialize_pem()).unwrap();
    }
    std::fs::write(path("headers"), "Authorization: Bearer secret\n").unwrap();
    let files = Files { certificate: path("server.crt"), key: path("server.key"), client_authorities: Vec::new() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let tls = Some(Arc::new(Tls::new("hubble", files).unwrap()));
    let mut arrivals = connections(listener, tls, Arc::new(Admission::new(10, 10)), CancellationToken::new());
    tokio::spawn(async move {
        while let Some(mut arrival) = arrivals.recv().await {
            let mut request = vec![0; 16 << 10];
            let length = arrival.stream.read(&mut request).await.unwrap();
            let is_known = String::from_utf8_lossy(&request[..length]).contains("authorization: Bearer secret\r\n");
            let (status, body) = if is_known { ("200 OK", matrix(&[])) } else { ("403 Forbidden", String::new()) };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            arrival.stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = arrival.stream.shutdown().await;
        }
    });
    let ask = |authority: &str, headers: Option<&str>| {
        let (authority, headers) = (Some(path(authority)), headers.map(&path));
        let server = Server::new(Settings { url: url.clone(), authority, headers }).unwrap();
        async move { server.query_range("up", (0, 0), 3600).await.map(|series| series.len()).map_err(|e| e.to_string()) }
    };
    assert_eq!(ask("server.crt", Some("headers")).await, Ok(0));
    let refused = ask("server.crt", None).await.unwrap_err();
    assert!(refused.contains(": 403 Forbidden: --prometheus-headers-file names a file"), "{refused}");
    let unknown = ask("other.crt", Some("headers")).await.unwrap_err();
    assert!(unknown.contains("invalid peer certificate"), "{unknown}");
    let no_authority = ask("headers", Some("headers")).await.unwrap_err();
    assert!(no_authority.contains("headers: there is no certificate"), "{no_authority}");
    std::fs::remove_dir_all(folder).unwrap();
}
