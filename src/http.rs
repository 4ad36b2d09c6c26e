//! The HTTP listener: `/metrics`, `/queries`, `/traces/<id>`, `/healthz`, `/readyz`.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::telemetry::exposition::Format;
use crate::telemetry::labels::Limit;
use crate::telemetry::registry::Registry;
use crate::telemetry::statistics::Statistics;
use crate::telemetry::tables;
use crate::trace_context::TraceId;

/// How many connections are served at a time; further ones wait in the backlog.
pub const MAX_CONNECTIONS: usize = 64;

/// How long a request's head may take.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection lives, and so how slowly an answer may be read. There is one request per connection.
pub const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// How many statements `/queries` tells of, unless it is asked for another number.
pub const DEFAULT_LIMIT: usize = 100;

/// How long nothing is accepted after accepting failed, for want of descriptors usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether the proxy takes clients, for whoever sends them. Shared.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

/// What [`Readiness`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Not yet.
    Starting,
    /// Yes.
    Accepting,
    /// No more.
    Draining,
}

impl Readiness {
    /// The listeners are open.
    pub fn set_accepting(&self) {
        // A drain that has begun stays one.
        let _ = (self.0).compare_exchange(STARTING, ACCEPTING, SeqCst, SeqCst);
    }

    /// Clients are let go, no others taken. Call it before the listeners close.
    pub fn set_draining(&self) {
        self.0.store(DRAINING, SeqCst);
    }

    /// What holds now.
    pub fn now(&self) -> Ready {
        match self.0.load(SeqCst) {
            STARTING => Ready::Starting,
            ACCEPTING => Ready::Accepting,
            _ => Ready::Draining,
        }
    }
}

const STARTING: u8 = 0;
const ACCEPTING: u8 = 1;
const DRAINING: u8 = 2;

/// What the listener tells of.
#[derive(Clone, Debug)]
pub struct Told {
    /// For `/metrics`.
    pub registry: Arc<Registry>,
    /// For `/queries` and `/traces/<id>`.
    pub statistics: Arc<Statistics>,
    /// For `/readyz`.
    pub readiness: Arc<Readiness>,
}

/// Answers on `listener` until `stop` is done; what is being answered then goes on for itself.
pub async fn serve(listener: TcpListener, told: Told, stop: impl Future<Output = ()>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::pin!(stop);
    loop {
        if room.available_permits() == 0 {
            told.registry
                .process
                .limits
                .of(Limit::HttpConnections)
                .increase();
        }
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, connection) = tokio::select! {
            () = &mut stop => return,
            accepted = accepted => accepted,
        };
        match connection {
            Ok((connection, _)) => {
                let told = told.clone();
                tokio::spawn(async move {
                    // Whether it answered or timed out: the connection is over.
                    let _ =
                        tokio::time::timeout(CONNECTION_TIMEOUT, answer(connection, told)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(connection: TcpStream, told: Told) {
    let service = service_fn(|request| {
        let told = told.clone();
        async move { Ok::<_, Infallible>(route(&request, told).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(connection), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection broke");
    }
}

async fn route(request: &Request<Incoming>, told: Told) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let trace = path.strip_prefix("/traces/");
    let known = matches!(path, "/metrics" | "/healthz" | "/readyz" | "/queries") || trace.is_some();
    if known && ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let methods = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, methods);
        return response;
    }
    if let Some(id) = trace {
        let Some(id) = TraceId::parse(id.as_bytes()) else {
            let why = "a trace id is 32 lower-case hexadecimal digits\n";
            return plain(StatusCode::BAD_REQUEST, why);
        };
        return json(move || tables::trace_json(&told.statistics, id)).await;
    }
    match path {
        "/metrics" => {
            let accept = request.headers().get(ACCEPT);
            let format = Format::accepted(accept.and_then(|accept| accept.to_str().ok()));
            metrics(told.registry, format).await
        }
        "/queries" => match limit(request.uri().query()) {
            Some(limit) => json(move || tables::queries_json(&told.statistics, limit)).await,
            None => plain(
                StatusCode::BAD_REQUEST,
                "expected no parameter but limit=<number>\n",
            ),
        },
        "/healthz" => plain(StatusCode::OK, "alive\n"),
        "/readyz" => match told.readiness.now() {
            Ready::Accepting => plain(StatusCode::OK, "accepting\n"),
            Ready::Starting => plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Ready::Draining => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        _ => plain(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// Off the runtime's threads: with many pools there is much to write.
async fn metrics(registry: Arc<Registry>, format: Format) -> Response<Full<Bytes>> {
    let text = tokio::task::spawn_blocking(move || format.encode(&registry.gather(now()))).await;
    match text {
        Ok(text) => respond(StatusCode::OK, format.content_type(), text.into()),
        Err(error) => {
            tracing::error!(%error, "could not gather the metrics");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
        }
    }
}

/// How many statements `/queries` tells of; `None` where the parameters are not understood.
fn limit(parameters: Option<&str>) -> Option<usize> {
    match parameters {
        None | Some("") => Some(DEFAULT_LIMIT),
        Some(parameters) => parameters.strip_prefix("limit=")?.parse().ok(),
    }
}

/// Off the runtime's threads, as with metrics. No cache may keep it.
async fn json(tell: impl FnOnce() -> serde_json::Value + Send + 'static) -> Response<Full<Bytes>> {
    let text = tokio::task::spawn_blocking(move || tell().to_string() + "\n").await;
    match text {
        Ok(text) => {
            let mut response = respond(StatusCode::OK, "application/json", text.into());
            let no_store = HeaderValue::from_static("no-store");
            response.headers_mut().insert(CACHE_CONTROL, no_store);
            response
        }
        Err(error) => {
            tracing::error!(%error, "could not gather the queries");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: a scrape is of its time"
)]
fn now() -> Instant {
    Instant::now()
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    respond(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(text.as_bytes()),
    )
}

fn respond(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;
    use crate::telemetry::registry::tests::registry;
    use crate::telemetry::statistics::{StatisticsKeeper, StatisticsSettings};

    #[tokio::test]
    async fn queries_and_traces_come_as_json() {
        let server = Server::start().await;
        let queries = server.get("/queries?limit=5", "").await;
        assert_eq!(queries.status, "HTTP/1.1 200 OK");
        assert_eq!(queries.content_type, "application/json");
        assert_eq!(queries.body, "{\"queries\":[],\"statements\":0}\n");
        assert!(queries.head.contains("cache-control: no-store"));

        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let found = server.get(&format!("/traces/{trace}"), "").await;
        assert_eq!(
            found.body,
            format!("{{\"queries\":[],\"trace_id\":\"{trace}\"}}\n")
        );
        for wrong in [
            "/traces/",
            "/traces/12",
            "/traces/4BF9",
            "/queries?limit=x",
            "/queries?a=1",
        ] {
            let refused = server.get(wrong, "").await;
            assert_eq!(refused.status, "HTTP/1.1 400 Bad Request", "{wrong}");
        }
    }

    #[tokio::test]
    async fn metrics_come_as_text_and_as_open_metrics() {
        let server = Server::start().await;
        server.registry.register_pool(0, "app", "ann");

        let text = server.get("/metrics", "").await;
        assert_eq!(text.status, "HTTP/1.1 200 OK");
        assert_eq!(
            text.content_type,
            "text/plain; version=0.0.4; charset=utf-8"
        );
        assert!(
            text.body
                .contains("pgspan_pool_clients{database=\"app\",user=\"ann\"} 0\n")
        );

        let open_metrics = server
            .get("/metrics", "Accept: application/openmetrics-text\r\n")
            .await;
        assert_eq!(
            open_metrics.content_type,
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        assert!(open_metrics.body.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn the_proxy_is_ready_only_between_start_and_drain_and_alive_throughout() {
        let server = Server::start().await;
        let unavailable = "HTTP/1.1 503 Service Unavailable";
        let starting = server.get("/readyz", "").await;
        assert_eq!(
            (starting.status.as_str(), starting.body.as_str()),
            (unavailable, "starting\n")
        );

        server.readiness.set_accepting();
        let accepting = server.get("/readyz", "").await;
        assert_eq!(accepting.status, "HTTP/1.1 200 OK");

        server.readiness.set_draining();
        server.readiness.set_accepting();
        let draining = server.get("/readyz", "").await;
        assert_eq!(
            (draining.status.as_str(), draining.body.as_str()),
            (unavailable, "draining\n")
        );
        assert_eq!(server.get("/healthz", "").await.body, "alive\n");
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let server = Server::start().await;
        assert_eq!(
            server.get("/etc/passwd", "").await.status,
            "HTTP/1.1 404 Not Found"
        );
        let post = server
            .send("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(post.status, "HTTP/1.1 405 Method Not Allowed");
        assert!(post.head.contains("allow: GET, HEAD"), "{}", post.head);
        let head = server
            .send("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        assert_eq!(
            (head.status.as_str(), head.body.as_str()),
            ("HTTP/1.1 200 OK", "")
        );
    }

    #[tokio::test]
    async fn what_is_no_request_is_answered_with_400() {
        let server = Server::start().await;
        let answer = server.send("\0\0\0 not HTTP\r\n\r\n").await;
        assert_eq!(answer.status, "HTTP/1.1 400 Bad Request");
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_their_turn() {
        let server = Server::start().await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(server.address).await.unwrap());
        }
        let mut waiting = TcpStream::connect(server.address).await.unwrap();
        waiting
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        let too_early = tokio::time::timeout(
            Duration::from_millis(50),
            waiting.read_to_string(&mut answer),
        );
        assert!(too_early.await.is_err());

        silent.pop();
        waiting.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }

    struct Server {
        address: std::net::SocketAddr,
        registry: Arc<Registry>,
        readiness: Arc<Readiness>,
        _stop: oneshot::Sender<()>,
    }

    struct Answer {
        status: String,
        head: String,
        content_type: String,
        body: String,
    }

    impl Server {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let registry = Arc::new(registry());
            let readiness = Arc::<Readiness>::default();
            let process = Arc::clone(&registry.process);
            let at = (now(), std::time::SystemTime::UNIX_EPOCH);
            let keeper =
                StatisticsKeeper::start(StatisticsSettings::default(), process, at).unwrap();
            let told = Told {
                registry: Arc::clone(&registry),
                statistics: Arc::clone(keeper.statistics()),
                readiness: Arc::clone(&readiness),
            };
            let (stop, stopped) = oneshot::channel();
            tokio::spawn(serve(listener, told, async {
                let _ = stopped.await;
            }));
            Self {
                address,
                registry,
                readiness,
                _stop: stop,
            }
        }

        async fn get(&self, path: &str, headers: &str) -> Answer {
            self.send(&format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
            ))
            .await
        }

        async fn send(&self, request: &str) -> Answer {
            let mut connection = TcpStream::connect(self.address).await.unwrap();
            connection.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let content_type = (head.lines())
                .find_map(|line| line.strip_prefix("content-type: "))
                .unwrap_or_default();
            Answer {
                status: head.lines().next().unwrap().to_owned(),
                head: head.to_owned(),
                content_type: content_type.to_owned(),
                body: body.to_owned(),
            }
        }
    }
}
