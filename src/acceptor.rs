//! Accepts connections, lets clients log in, and deals them to the workers.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::admin::Console;
use crate::admission::{AdmissionError, Admitted, Arrival, Gate};
use crate::arrivals::Arrivals;
use crate::cancel;
use crate::config::choices::ErrorTexts;
use crate::net::listener::Listener;
use crate::net::socket::{Peer, Socket, Stream};
use crate::net::timer;
use crate::net::tls_session::TlsSession;
use crate::protocol::cancel_key::CancelKey;
use crate::protocol::startup::StartupError;
use crate::session::greeting::GreetingError;
use crate::shard::{GOODBYE_TIMEOUT, PoolKey, clock};
use crate::spread::{Seat, Spreads};
use crate::telemetry::labels::{CancelOutcome, Limit, LoginOutcome, Rejection};
use crate::telemetry::metrics::ProcessMetrics;
use crate::worker::{Mail, Worker};

/// How long nothing is accepted after accepting failed, for want of descriptors usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection needs on its way in.
#[derive(Debug)]
pub struct Acceptor {
    gate: Arc<Gate>,
    workers: Arc<[Worker]>,
    spreads: Arc<Spreads>,
    console: Arc<Console>,
    arriving: Arc<Arrivals>,
    process: Arc<ProcessMetrics>,
}

impl Acceptor {
    /// Lets clients in by `gate`, to these workers.
    pub fn new(
        gate: Arc<Gate>,
        workers: Arc<[Worker]>,
        spreads: Arc<Spreads>,
        console: Arc<Console>,
        process: Arc<ProcessMetrics>,
    ) -> Self {
        Self {
            gate,
            workers,
            spreads,
            console,
            arriving: Arc::default(),
            process,
        }
    }

    /// The workers.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Accepts until `stop` is called for; those who are logging in then go on for themselves.
    pub async fn run(self: Arc<Self>, listener: Listener, stop: CancellationToken) {
        if let Err(error) = listener.keep(&self.gate.config().tcp) {
            tracing::warn!(%error, "connections of clients can't be kept as [tcp] says");
        }
        let listener = match listener.open() {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "can't accept clients"),
        };
        loop {
            let connection = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match connection {
                Ok(stream) => {
                    let acceptor = Arc::clone(&self);
                    tokio::spawn(async move {
                        acceptor.receive(stream).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a client");
                    timer::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn receive(&self, stream: Stream) {
        let accepted_at = clock();
        let peer = stream.peer();
        let socket = match Socket::new(stream) {
            Ok(socket) => socket,
            Err(error) => return tracing::warn!(%error, "could not serve a client"),
        };
        self.process.clients_accepted.increase();
        let config = self.gate.config();
        let listen = &config.listen;
        let (arriving, is_over) = self
            .arriving
            .enter(listen.max_unauthenticated_connections.get());
        if is_over {
            let limits = &self.process.limits;
            limits.of(Limit::UnauthenticatedConnections).increase();
        }
        let login_timeout = listen.login_timeout;
        let logging_in = LoggingIn::new(&self.process);
        let arrival = tokio::select! {
            arrival = timer::timeout(login_timeout, self.gate.admit(socket, accepted_at)) => arrival,
            () = arriving.displaced.cancelled() => {
                tracing::info!(
                    %peer,
                    "closing because: too many connections have not logged in (max_unauthenticated_connections)"
                );
                return;
            }
        };
        drop(logging_in);
        match arrival {
            Ok(Ok(Arrival::Client(mut admitted))) => {
                if config.log.connections {
                    tracing::info!(
                        database = &*admitted.database,
                        user = &*admitted.user,
                        %peer,
                        "login attempt: db={} user={} tls={}",
                        admitted.database,
                        admitted.user,
                        admitted.encryption.as_deref().unwrap_or("no")
                    );
                }
                let worker = self.worker_for(&mut admitted);
                // A worker that is gone has let go of the client: its connection is closed.
                worker.send(Mail::Client(admitted)).await;
            }
            Ok(Ok(Arrival::Console(visitor))) => {
                if config.log.connections {
                    let encryption = visitor.socket.tls().and_then(TlsSession::description);
                    tracing::info!(
                        database = "pgbouncer",
                        user = &*visitor.visit.user,
                        %peer,
                        "login attempt: db=pgbouncer user={} tls={}",
                        visitor.visit.user,
                        encryption.as_deref().unwrap_or("no")
                    );
                }
                let elapsed = clock().saturating_duration_since(accepted_at);
                self.process.logged_in(LoginOutcome::Completed, elapsed);
                let console = Arc::clone(&self.console);
                // Its place among those who are arriving is somebody else's now.
                tokio::spawn(async move { console.serve(visitor).await });
            }
            Ok(Ok(Arrival::Cancel(key, socket))) => Box::pin(self.cancel(key, socket)).await,
            Ok(Err((error, socket))) => tokio::select! {
                () = Box::pin(self.turn_away(&error, socket, accepted_at, peer)) => {}
                () = arriving.displaced.cancelled() => {}
            },
            Err(_) => {
                self.process
                    .clients_rejected
                    .of(Rejection::Timeout)
                    .increase();
                self.process.logged_in(LoginOutcome::Timeout, login_timeout);
                if config.log.disconnections {
                    tracing::info!(
                        %peer,
                        "closing because: client_login_timeout (age={}s)",
                        login_timeout.as_secs()
                    );
                }
            }
        }
    }

    /// Of those that the client's pool lives on the one with the fewest of its clients.
    fn worker_for(&self, admitted: &mut Admitted) -> &Worker {
        if let [only] = &*self.workers {
            return only;
        }
        let config = self.gate.config();
        let key = PoolKey::new(&config, &admitted.database, &admitted.user);
        let living = key.workers(&config, self.workers.len());
        let seat = self.spreads.seat(&key.account(), living);
        let number = seat.as_ref().map_or(0, Seat::worker);
        if let Some(seat) = seat {
            admitted.place.sit(seat);
        }
        self.workers.get(number).expect("a worker's number")
    }

    async fn cancel(&self, key: CancelKey, socket: Socket) {
        let config = self.gate.config();
        let own = config.listen.peer_id;
        let peer = match (own, cancel::peer_of(key.process_id())) {
            (0, _) => None,
            (own, peer) if own == peer => None,
            (_, peer) => Some(config.peers.get(&peer)),
        };
        if let Some(peer) = peer {
            let outcome = match peer {
                Some(peer) => cancel::relay(peer, &key).await,
                None => CancelOutcome::Unknown,
            };
            self.process.cancels.of(outcome).increase();
            return drop(socket);
        }
        // However often it was passed on.
        let key = if own == 0 { key } else { key.with_all_hops() };
        let (done, outcome) = oneshot::channel();
        let outcome = match self.workers.get(cancel::worker_of(key.process_id())) {
            Some(worker) if worker.send(Mail::Cancel(key, done)).await => {
                outcome.await.unwrap_or(CancelOutcome::Failed)
            }
            _ => CancelOutcome::Unknown,
        };
        self.process.cancels.of(outcome).increase();
        // The client waits for the end of the connection: only now may it take the cancel for delivered.
        drop(socket);
    }

    async fn turn_away(
        &self,
        error: &AdmissionError,
        socket: Option<Socket>,
        accepted_at: std::time::Instant,
        peer: Peer,
    ) {
        let elapsed = clock().saturating_duration_since(accepted_at);
        let (outcome, rejection) = match error {
            // A port that is probed, or a balancer's health check: nobody.
            AdmissionError::Lost(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                (LoginOutcome::Abandoned, None)
            }
            AdmissionError::Lost(_) => (LoginOutcome::Abandoned, None),
            AdmissionError::Greeting(_) => (LoginOutcome::Failed, Some(Rejection::Violation)),
            AdmissionError::Login(_) => (LoginOutcome::Refused, Some(Rejection::Authentication)),
            AdmissionError::UnknownUser { .. }
            | AdmissionError::TlsRequired
            | AdmissionError::NoRule
            | AdmissionError::Rejected
            | AdmissionError::Certificate
            | AdmissionError::Peer
            | AdmissionError::BackedOff
            | AdmissionError::NobodyToBe => {
                (LoginOutcome::Refused, Some(Rejection::Authentication))
            }
            AdmissionError::Inquiry { .. } => {
                (LoginOutcome::Failed, Some(Rejection::Authentication))
            }
            AdmissionError::Tls(_) => (LoginOutcome::Failed, Some(Rejection::Tls)),
            AdmissionError::UnknownDatabase(_) => {
                (LoginOutcome::Refused, Some(Rejection::UnknownDatabase))
            }
            AdmissionError::NotAllowed => (LoginOutcome::Refused, Some(Rejection::Authentication)),
            AdmissionError::Full => (LoginOutcome::Refused, Some(Rejection::ClientLimit)),
            AdmissionError::DatabaseFull => (LoginOutcome::Refused, Some(Rejection::DatabaseLimit)),
            AdmissionError::UserFull => (LoginOutcome::Refused, Some(Rejection::UserLimit)),
        };
        self.process.logged_in(outcome, elapsed);
        match error {
            AdmissionError::Full => self.process.limits.of(Limit::Clients).increase(),
            AdmissionError::DatabaseFull => {
                self.process.limits.of(Limit::DatabaseClients).increase();
            }
            AdmissionError::UserFull => self.process.limits.of(Limit::UserClients).increase(),
            AdmissionError::Greeting(GreetingError::Startup(StartupError::InvalidLength)) => {
                self.process.limits.of(Limit::StartupBytes).increase();
            }
            _ => {}
        }
        let config = self.gate.config();
        let words = match config.auth.error_texts {
            ErrorTexts::PostgreSql => None,
            ErrorTexts::PgBouncer => error.words_of_pgbouncer(config.auth.method),
        };
        if let (AdmissionError::Inquiry { .. }, Some(_)) = (error, &words) {
            // What the words leave out.
            tracing::warn!(%peer, "{error}");
        }
        if let Some(rejection) = rejection {
            let why = words.clone().unwrap_or_else(|| error.to_string());
            self.process.clients_rejected.of(rejection).increase();
            if config.log.disconnections {
                tracing::info!(%peer, "closing because: {why} (age={}s)", elapsed.as_secs());
            }
            if config.log.pooler_errors {
                tracing::warn!(%peer, "pooler error: {why}");
            }
        }
        let (Some(mut response), Some(mut socket)) = (error.response(), socket) else {
            return;
        };
        if let Some(words) = words {
            response.message = words.into();
        }
        let mut out = Vec::new();
        response.encode(&mut out);
        let goodbye = async {
            socket.write_all(&out).await?;
            socket.shutdown()?;
            // What the client still sends is read, or its system would throw away what it has not read yet.
            let mut unread = [0; 1024];
            while poll_fn(|cx| socket.poll_read(cx, &mut unread)).await? > 0 {}
            io::Result::Ok(())
        };
        // It may be that nobody reads it.
        let _ = timer::timeout(GOODBYE_TIMEOUT, goodbye).await;
    }
}

/// A connection that counts as logging in until this is dropped.
struct LoggingIn<'a>(&'a ProcessMetrics);

impl<'a> LoggingIn<'a> {
    fn new(process: &'a ProcessMetrics) -> Self {
        process.clients_logging_in.increase();
        Self(process)
    }
}

impl Drop for LoggingIn<'_> {
    fn drop(&mut self) {
        self.0.clients_logging_in.decrease();
    }
}
