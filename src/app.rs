//! The whole: builds all parts from the configuration, and takes them down in order.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acceptor::Acceptor;
use crate::admin::command::Shutdown;
use crate::admin::{Console, PGBOUNCER_VERSION};
use crate::admission::Gate;
use crate::allowance::Allowances;
use crate::cancel::MAX_WORKERS;
use crate::config::choices::{Compression, LogFormat, LogLevel, WorkerCount};
use crate::config::tls::TlsMode;
use crate::config::{self, Config, Listen, Otlp};
use crate::http::{self, Readiness, Told};
use crate::net::listener::Listener;
use crate::process::PidFile;
use crate::reload::{self, Reloader, Source};
use crate::session::tally::ANNOTATION_OUTCOMES;
use crate::shard::clock;
use crate::shutdown::{Asked, Ending, Signals};
use crate::spread::Spreads;
use crate::systemd;
use crate::telemetry::exporter::{AttributeRules, OtlpEndpoint, OtlpSettings};
use crate::telemetry::log::{self, LINE_QUEUE, Lines};
use crate::telemetry::log_output::LogOutput;
use crate::telemetry::metrics::ProcessMetrics;
use crate::telemetry::registry::{MetricLabels, Registry};
use crate::telemetry::slow_query::SlowQueryPolicy;
use crate::telemetry::statistics::StatisticsSettings;
use crate::telemetry::{Telemetry, TelemetryError, labels};
use crate::worker::{Mail, Worker};

/// How long spans and log lines may take to leave at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// A running proxy.
#[derive(Debug)]
pub struct App {
    listen_address: Option<SocketAddr>,
    http_address: Option<SocketAddr>,
    acceptor: Arc<Acceptor>,
    telemetry: Telemetry,
    readiness: Arc<Readiness>,
    reloader: Arc<Reloader>,
    process: Arc<ProcessMetrics>,
    stop_accepting: CancellationToken,
    stop_http: CancellationToken,
    tasks: TaskTracker,
    console: Arc<Console>,
    /// What was ordered on the console.
    shutdowns: Mutex<mpsc::Receiver<Shutdown>>,
}

/// Why the proxy could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error("{key}: cannot listen on {place}: {error}")]
    Listen {
        /// Which key of the configuration names it.
        key: &'static str,
        /// The address, or the unix socket's path.
        place: String,
        /// Why.
        error: io::Error,
    },
    /// The log's file can't be opened.
    #[error("log.file: cannot open {}: {error}", path.display())]
    LogFile {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Telemetry can't be started: no exporter can be made of the settings in `[otlp]`, for one.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The system has no thread, or no poller.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl App {
    /// Starts everything on the runtime that this is called on; the workers have threads of their own.
    ///
    /// # Errors
    /// What of it can't be started; nothing is left running then.
    pub async fn start(
        config: Config,
        source: Box<dyn Source>,
        registry: Arc<Registry>,
        lines: Lines,
    ) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let process = Arc::clone(&registry.process);
        let listeners = match systemd::listeners() {
            Ok(handed) if handed.is_empty() => listen(&config.listen)?,
            Ok(handed) => {
                tracing::warn!("sockets passed from service manager, [listen] is ignored");
                handed
            }
            Err(error) => {
                return Err(StartError::Listen {
                    key: "LISTEN_FDS",
                    place: "a socket passed from the service manager".into(),
                    error,
                });
            }
        };
        let listen_address = listeners.iter().find_map(Listener::address);
        let http = config.http.address.map(listen_http).transpose()?;
        let http_address = http.as_ref().and_then(|http| http.local_addr().ok());

        let otlp = otlp_settings(&config.otlp);
        let worker_count = worker_count(config.workers.count);
        let telemetry = Telemetry::start(
            otlp.as_ref(),
            statistics_settings(&config, worker_count),
            lines,
            Arc::clone(&process),
            (clock(), SystemTime::now()),
        )?;
        reload::show(&config, &process);

        let allowances = Arc::new(Allowances::default());
        let spreads = Arc::new(Spreads::new(worker_count.into(), clock()));
        let logins_are_short = config.listen.tls.mode == TlsMode::Disable;
        let workers = (0..worker_count)
            .map(|number| {
                let telemetry = telemetry.worker(SlowQueryPolicy::from(&config.slow_query));
                Worker::start(
                    number,
                    worker_count.into(),
                    Arc::clone(&config),
                    Arc::clone(&registry),
                    Arc::clone(&allowances),
                    Arc::clone(&spreads),
                    telemetry,
                )
            })
            .collect::<io::Result<Arc<[_]>>>()
            .map_err(StartError::Thread)?;
        let gate = Arc::new(Gate::new(Arc::clone(&config), Arc::clone(&process), clock));
        let reloader = Arc::new(Reloader::new(
            source,
            config,
            Arc::clone(&gate),
            Arc::clone(&workers),
            Arc::clone(&process),
        ));
        let (console, shutdowns) = Console::new(
            Arc::clone(&reloader),
            Arc::clone(&workers),
            Arc::clone(&registry),
            Arc::clone(telemetry.statistics()),
        );
        let acceptor = Arc::new(Acceptor::new(
            gate,
            workers,
            spreads,
            Arc::clone(&console),
            Arc::clone(&process),
        ));

        let (stop_accepting, stop_http) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let readiness = Arc::new(Readiness::default());
        for listener in listeners {
            let accepting = Arc::clone(&acceptor).run(listener, stop_accepting.clone());
            let accepting = tasks.track_future(accepting);
            match acceptor.workers() {
                // A login costs less than handing the connection over from thread to thread; a TLS handshake does not.
                [only] if logins_are_short => {
                    only.ask(|_| drop(tokio::task::spawn_local(accepting)))
                        .await;
                }
                _ => {
                    tokio::spawn(accepting);
                }
            }
        }
        let statistics = Arc::clone(&console).keep_statistics();
        let stop = stop_http.clone();
        tasks.spawn(async move { stop.run_until_cancelled(statistics).await });
        if let Some(http) = http {
            let told = Told {
                registry,
                statistics: Arc::clone(telemetry.statistics()),
                readiness: Arc::clone(&readiness),
            };
            tasks.spawn(http::serve(http, told, stop_http.clone().cancelled_owned()));
        }
        readiness.set_accepting();
        Ok(Self {
            listen_address,
            http_address,
            acceptor,
            telemetry,
            readiness,
            reloader,
            process,
            stop_accepting,
            stop_http,
            tasks,
            console,
            shutdowns: Mutex::new(shutdowns),
        })
    }

    /// Where clients connect over TCP, if they can; the first address of several.
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.listen_address
    }

    /// Where metrics are served, if they are.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// The console, which PAUSE and RESUME by signals go to, too.
    pub fn console(&self) -> &Arc<Console> {
        &self.console
    }

    /// Waits until an administrator orders on the console to shut down. Cancel safe.
    pub async fn ordered_shutdown(&self) -> Shutdown {
        match self.shutdowns.lock().await.recv().await {
            Some(shutdown) => shutdown,
            None => std::future::pending().await,
        }
    }

    /// Reads the configuration again. Whether it holds now is in the log.
    pub async fn reload(&self) {
        match self.reloader.reload().await {
            Ok(()) => tracing::info!("the configuration was read again and holds now"),
            Err(why) => {
                tracing::error!("the configuration was not taken, nothing has changed:\n{why}")
            }
        }
    }

    /// Takes no more clients, and waits until the others have left as `ending` says.
    pub async fn shut_down(&self, ending: Ending) {
        // First, so that whoever balances load knows before a connection is refused.
        self.readiness.set_draining();
        self.process.draining.set(1);
        self.stop_accepting.cancel();
        let workers = self.acceptor.workers();
        match ending {
            Ending::Now => {}
            Ending::Drain => {
                for worker in workers {
                    worker.send(Mail::Drain).await;
                }
                for worker in workers {
                    worker.ended().await;
                }
            }
            Ending::WhenClientsLeft => {
                for worker in workers {
                    worker.ask(|shard| shard.end_when_left()).await;
                }
                for worker in workers {
                    worker.ended().await;
                }
            }
            Ending::WhenServersReleased => {
                for worker in workers {
                    worker.ask(|shard| shard.close_doors()).await;
                }
                self.console.pause().await;
            }
        }
    }

    /// Lets spans and log lines leave, and ends. Clients that are still there are cut off.
    pub async fn end(self) {
        self.stop_accepting.cancel();
        self.stop_http.cancel();
        self.tasks.close();
        let flushed = async {
            self.tasks.wait().await;
            self.telemetry.shutdown(FLUSH_TIMEOUT).await;
        };
        // Past the limit the rest is left out.
        let _ = tokio::time::timeout(2 * FLUSH_TIMEOUT, flushed).await;
    }
}

/// Connections to the HTTP listener that the kernel holds until they are accepted.
const HTTP_BACKLOG: u32 = 128;

/// What `pgspan run` does: serves until it is told to end. SIGTERM and SIGINT drain; a second one, and SIGQUIT, end at once.
pub fn run(config: Config, source: Box<dyn Source>, quiet: bool) -> ExitCode {
    let registry = Arc::new(Registry::new(
        MetricLabels {
            annotation_reasons: ANNOTATION_OUTCOMES,
            pgbouncer_version: PGBOUNCER_VERSION.into(),
        },
        clock(),
    ));
    let process = Arc::clone(&registry.process);
    let output = match log_output(&config.log, quiet) {
        Ok(output) => output,
        Err(error) => return failed(&error),
    };
    let lines = match Lines::start(output, LINE_QUEUE, process) {
        Ok(lines) => lines,
        Err(error) => return failed(&StartError::Thread(error)),
    };
    let subscriber = log::subscriber(
        log_format(config.log.format),
        log_level(config.log.level),
        lines.clone(),
    );
    tracing::subscriber::set_global_default(subscriber).expect("nobody else has set one");
    // One thread for all that is not a query: accepting, logins, HTTP, export.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build();
    let code = match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(serve(config, source, registry, lines.clone()));
            // Who still is in a transaction is not waited for: the drain is over. The timers of their workers go on to the end.
            std::mem::forget(runtime);
            code
        }
        Err(error) => failed(&StartError::Thread(error)),
    };
    lines.flush(FLUSH_TIMEOUT);
    code
}

async fn serve(
    config: Config,
    source: Box<dyn Source>,
    registry: Arc<Registry>,
    lines: Lines,
) -> ExitCode {
    raise_file_limit(&config);
    let drain_timeout = config.drain.timeout;
    let on_sigterm = config.drain.on_sigterm;
    let pid_file = config.process.pid_file.clone();
    let app = match App::start(config, source, registry, lines).await {
        Ok(app) => app,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    // Gone when this function ends.
    let _pid_file = match pid_file.as_deref().map(PidFile::write).transpose() {
        Ok(file) => file,
        Err(error) => {
            tracing::error!("the pid file can't be written: {error}");
            return ExitCode::FAILURE;
        }
    };
    tracing::info!(
        listen = app.listen_address.map(tracing::field::display),
        http = app.http_address.map(tracing::field::display),
        "process up: pgspan {}, in the place of PgBouncer {PGBOUNCER_VERSION}",
        env!("CARGO_PKG_VERSION"),
    );
    let mut signals = match Signals::new(on_sigterm) {
        Ok(signals) => signals,
        Err(error) => return failed(&StartError::Thread(error)),
    };
    systemd::notify("READY=1");
    let ending = loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            shutdown = app.ordered_shutdown() => Asked::End(shutdown.into()),
        };
        match asked {
            Asked::Reload => {
                systemd::notify_reloading();
                app.reload().await;
                systemd::notify("READY=1");
            }
            // The line is written when it is asked for: what it waits for may take long.
            Asked::Pause => {
                let console = Arc::clone(app.console());
                tokio::spawn(async move { console.pause().await });
            }
            Asked::Resume => {
                app.console().resume().await;
            }
            Asked::End(ending) => break ending,
        }
    };
    systemd::notify("STOPPING=1");
    if ending != Ending::Now {
        let limit = async {
            match drain_timeout.filter(|_| ending == Ending::Drain) {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = app.shut_down(ending) => tracing::info!("server connections dropped, exiting"),
            () = limit => tracing::warn!("drain timeout: clients in transactions are cut off"),
            _ = app.ordered_shutdown() => tracing::warn!("immediate shutdown: clients are cut off"),
            () = signals.next_while_ending() => tracing::warn!("immediate shutdown: clients are cut off"),
        }
    }
    app.end().await;
    ExitCode::SUCCESS
}

fn failed(error: &StartError) -> ExitCode {
    eprintln!("pgspan: {error}");
    ExitCode::FAILURE
}

/// Listens wherever clients may connect. Of several addresses some may fail (a machine without IPv6), but not all.
fn listen(settings: &Listen) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    let mut failed = None;
    for &address in &settings.addresses {
        let failure = |error| StartError::Listen {
            key: "listen.address",
            place: address.to_string(),
            error,
        };
        match Listener::tcp(address, settings.backlog, settings.reuse_port).map_err(failure) {
            Ok(listener) => {
                let address = listener.address().unwrap_or(address);
                tracing::info!("listening on {address}");
                listeners.push(listener);
            }
            Err(error) => {
                tracing::warn!("{error}");
                failed = Some(error);
            }
        }
    }
    if let Some(error) = failed.filter(|_| listeners.is_empty()) {
        return Err(error);
    }
    if let Some(place) = &settings.unix_socket {
        let path = place.path();
        let listener =
            Listener::unix(place, settings.backlog).map_err(|error| StartError::Listen {
                key: "listen.unix_socket_dir",
                place: path.display().to_string(),
                error,
            })?;
        tracing::info!("listening on unix:{}", path.display());
        listeners.push(listener);
    }
    Ok(listeners)
}

fn listen_http(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(HTTP_BACKLOG)
    };
    listen().map_err(|error| StartError::Listen {
        key: "http.address",
        place: address.to_string(),
        error,
    })
}

fn worker_count(count: WorkerCount) -> u8 {
    let wanted = match count {
        WorkerCount::Fixed(count) => count.get(),
        WorkerCount::Auto => std::thread::available_parallelism().map_or(1, usize::from),
    };
    u8::try_from(wanted.min(MAX_WORKERS)).expect("no more than process ids can tell apart")
}

/// Every client and every server takes a descriptor: as many as the system gives.
fn raise_file_limit(config: &Config) {
    let wanted = config.listen.max_client_connections.get() as u64;
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < wanted => tracing::warn!(
            "the limit on open files ({limit}) is below max_client_connections ({wanted}): raise it (ulimit -n, LimitNOFILE)"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!("the limit on open files can't be raised: {error}"),
    }
}

fn statistics_settings(config: &Config, workers: u8) -> StatisticsSettings {
    StatisticsSettings {
        statements: config.statistics.max_statements,
        traced_queries: config.statistics.max_traced_queries,
        slow_queries: config.statistics.max_slow_queries,
        workers: workers.into(),
        masked: config.slow_query.masked,
    }
}

fn otlp_settings(otlp: &Otlp) -> Option<OtlpSettings> {
    let endpoint = OtlpEndpoint::Traces(otlp.endpoint.clone()?);
    let headers = otlp
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.expose().into()));
    Some(OtlpSettings {
        gzip: otlp.compression == Compression::Gzip,
        headers: headers.collect(),
        tls: otlp.tls.clone(),
        service_name: otlp.service_name.clone(),
        resource_attributes: otlp.resource_attributes.clone(),
        queue_size: otlp.queue_size.get(),
        max_export_batch_size: otlp.max_export_batch_size.get(),
        schedule_delay: otlp.schedule_delay,
        export_timeout: otlp.export_timeout,
        max_spans_per_second: otlp.max_spans_per_second,
        attributes: AttributeRules {
            include: otlp.include_attributes.clone(),
            exclude: otlp.exclude_attributes.clone(),
        },
        ..OtlpSettings::new(endpoint, otlp.protocol)
    })
}

fn log_output(log: &config::Log, quiet: bool) -> Result<LogOutput, StartError> {
    let mut output = match quiet {
        true => LogOutput::nowhere(),
        false => LogOutput::stderr(),
    };
    if let Some(path) = &log.file {
        output = output.and_file(path).map_err(|error| StartError::LogFile {
            path: path.clone(),
            error,
        })?;
    }
    if log.syslog {
        output = output.and_syslog(&log.syslog_ident, log.syslog_facility);
    }
    Ok(output)
}

fn log_format(format: LogFormat) -> log::LogFormat {
    match format {
        LogFormat::Text => log::LogFormat::Text,
        LogFormat::Json => log::LogFormat::Json,
        LogFormat::PgBouncer => log::LogFormat::PgBouncer,
    }
}

fn log_level(level: LogLevel) -> labels::LogLevel {
    match level {
        LogLevel::Error => labels::LogLevel::Error,
        LogLevel::Warn => labels::LogLevel::Warn,
        LogLevel::Info => labels::LogLevel::Info,
        LogLevel::Debug => labels::LogLevel::Debug,
        LogLevel::Trace => labels::LogLevel::Trace,
    }
}
