//! A client's life on its worker: it is welcomed, served, and seen off.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::admission::Admitted;
use crate::auth::credentials::Credentials;
use crate::config::choices::{ErrorTexts, PoolMode};
use crate::link::{Link, Parting};
use crate::net::lane::Lane;
use crate::net::socket::Socket;
use crate::net::timer;
use crate::protocol::backend::TransactionStatus;
use crate::protocol::encode;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::outbound::Outbound;
use crate::protocol::startup::{Parameter, Replication};
use crate::server::ServerConnection;
use crate::server_pool::{Refusal, ServerPool};
use crate::session::client_session::ClientSession;
use crate::session::driver::Driver;
use crate::session::startup_settings::{StartupSettings, clean_application_name};
use crate::session::trace::{SessionTrace, Startup};
use crate::shard::{ClientAbout, GOODBYE_TIMEOUT, PoolKey, SessionCard, Shard};
use crate::telemetry::labels::LoginOutcome;

/// A client that has logged in, until it leaves: what its task does.
///
/// What waits for years is small: a task takes its memory by steps of 128 bytes, and with this one it is at the first. An async
/// function would keep room for its arguments as well, and be at the second.
pub enum Service {
    /// It is told what it has to know.
    Welcome(Pin<Box<dyn Future<Output = Option<Box<Link>>>>>),
    /// It is at work.
    Work(Option<Box<Link>>),
    /// It leaves.
    Farewell(Pin<Box<dyn Future<Output = ()>>>),
}

impl Service {
    /// Of a client that was let in.
    pub fn new(shard: Rc<Shard>, admitted: Box<Admitted>) -> Self {
        Self::Welcome(Box::pin(welcome(shard, admitted)))
    }
}

impl Future for Service {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            *self = match &mut *self {
                Self::Welcome(welcome) => {
                    let Some(link) = ready!(welcome.as_mut().poll(cx)) else {
                        return Poll::Ready(());
                    };
                    link.card().waker.replace(Some(cx.waker().clone()));
                    Self::Work(Some(link))
                }
                Self::Work(link) => {
                    let at_work = link.as_mut().expect("it is there until it leaves");
                    let parting = ready!(at_work.poll_serve(cx));
                    let link = link.take().expect("it was there");
                    Self::Farewell(Box::pin(see_off(link, parting)))
                }
                Self::Farewell(farewell) => return farewell.as_mut().poll(cx),
            }
        }
    }
}

async fn see_off(link: Box<Link>, parting: Parting) {
    let (shard, pool, about) = (link.shard(), link.pool(), &link.card().about);
    if let Some(blame) = parting.blame() {
        pool.metrics.errors.of(blame).increase();
    }
    let age = shard.now().saturating_duration_since(about.accepted_at);
    log_parting(shard, pool, about, &parting, age.as_secs());
    link.part(&parting).await;
}

/// What a client needs to be served.
struct Prepared {
    pool: Rc<ServerPool>,
    session: ClientSession,
    card: Rc<SessionCard>,
    /// The server that is for this client alone.
    server: Option<Box<ServerConnection>>,
}

/// Tells the client what it has to know. `None` where it was sent away instead.
async fn welcome(shard: Rc<Shard>, admitted: Box<Admitted>) -> Option<Box<Link>> {
    let Admitted {
        socket,
        serial,
        peer,
        encryption,
        user,
        database,
        parameters,
        replication,
        credentials,
        version,
        ahead,
        accepted_at,
        login,
        place,
    } = *admitted;
    let socket = Socket::attach(socket).ok()?;
    let about = ClientAbout {
        serial,
        database: (&*database).into(),
        user: (&*user).into(),
        peer: peer.address(),
        local: socket.stream().local_address(),
        process: peer.process(),
        encryption,
        replication,
        accepted_at,
    };
    let mut lane = Lane::new(socket);
    let key = PoolKey::new(&shard.config(), &database, &user);
    let process = shard.process();
    let mut out = Outbound::new();
    let outcome = prepare(
        &shard,
        &key,
        about,
        &parameters,
        replication,
        credentials,
        version.has_long_cancel_keys(),
        &mut out,
    )
    .await;
    let elapsed = shard.now().saturating_duration_since(accepted_at);
    match outcome {
        Ok(Prepared {
            pool,
            session,
            card,
            server,
        }) => {
            let mut link = Box::new(Link::new(
                Rc::clone(&shard),
                pool,
                card,
                place,
                lane,
                session,
                ahead,
            ));
            if link.greet(&mut out).is_err() {
                process.logged_in(LoginOutcome::Abandoned, elapsed);
                return None;
            }
            process.logged_in(LoginOutcome::Completed, elapsed);
            link.pool().metrics.pgbouncer.logins.increase();
            login.finish(shard.now());
            if let Some(server) = server {
                link.keep(server);
            }
            Some(link)
        }
        Err(refused) => {
            process.logged_in(LoginOutcome::Failed, elapsed);
            let age = elapsed.as_secs();
            log_closing(
                &shard,
                &key.database,
                &user,
                &peer.to_string(),
                &refused.message,
                age,
            );
            if shard.config().log.pooler_errors {
                tracing::warn!(
                    database = &*key.database,
                    user = &*user,
                    %peer,
                    "pooler error: {}",
                    refused.message
                );
            }
            out.clear();
            out.write(|out| refused.encode(out));
            if lane.send(&mut out, &[]).is_ok() {
                // It may be that nobody reads it.
                let _ = timer::timeout(GOODBYE_TIMEOUT, poll_fn(|cx| lane.poll_drain(cx))).await;
            }
            None
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "what a login brings along, each of another origin"
)]
async fn prepare(
    shard: &Rc<Shard>,
    key: &PoolKey,
    mut about: ClientAbout,
    parameters: &[Parameter],
    replication: Replication,
    credentials: Credentials,
    has_long_cancel_key: bool,
    out: &mut Outbound,
) -> Result<Prepared, ErrorResponse> {
    /// What protocol 3.2 allows and PostgreSQL 18 uses, and what older versions of the protocol have room for.
    const SECRET_LENS: [usize; 2] = [32, 4];
    if shard.is_draining() {
        return Err(Refusal::Draining.response());
    }
    let unknown = || {
        let message = format!("database \"{}\" does not exist", key.database);
        ErrorResponse::fatal(SqlState::INVALID_CATALOG_NAME, message)
    };
    let pool = shard.pool(key).ok_or_else(unknown)?;
    pool.offer(credentials);
    let terms = pool.terms();
    about.share_names(&terms.identity);
    if shard.neighbours().is_disabled(&key.database) {
        let message = format!("database \"{}\" is disabled", key.database);
        return Err(ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, message));
    }
    let trace_policy = match *about.user == *key.user {
        true => Arc::clone(&terms.trace_policy),
        false => shard.trace_policy(&key.database, &about.user),
    };
    let parameters = parameters.iter().map(|(name, value)| (&**name, &**value));
    let Startup {
        mut trace,
        parameters,
        warnings,
    } = SessionTrace::at_startup(trace_policy, parameters);
    let [long, short] = SECRET_LENS;
    let secret_len = if has_long_cancel_key { long } else { short };
    if replication != Replication::None {
        let owned =
            |(name, value): &(&[u8], Cow<'_, [u8]>)| (Box::from(*name), Box::from(&**value));
        let parameters = parameters.iter().map(owned).collect();
        let server = Box::pin(pool.dedicated(parameters, replication)).await?;
        let wanted = Rc::clone(&server.session.parameters);
        let card = shard.new_card(secret_len, about, &wanted);
        out.write(|out| {
            for (name, value) in &server.reported {
                encode::parameter_status(out, name, value);
            }
            encode::backend_key_data(out, &card.cancel_key);
            encode::ready_for_query(out, TransactionStatus::Idle);
        });
        let mut session =
            ClientSession::new(PoolMode::Session, trace, wanted, server.version_number());
        session.is_replication = true;
        return Ok(Prepared {
            pool,
            session,
            card,
            server: Some(server),
        });
    }
    let StartupSettings {
        settings,
        application_name,
    } = StartupSettings::read(
        parameters.iter().map(|(name, value)| (*name, &**value)),
        &terms.settings.ignore_startup_parameters,
    )
    .map_err(|refused| in_words_of(shard.config().auth.error_texts, refused))?;
    let welcome = pool.welcome(&settings).await?;
    let application_name =
        application_name.map(|name| clean_application_name(&name, welcome.server_version));
    let wishes = pool.wishes(&welcome, application_name.as_deref());
    let card = shard.new_card(secret_len, about, &wishes.all);
    out.write(|out| {
        warnings.iter().for_each(|warning| warning.encode(out));
        out.extend_from_slice(&welcome.messages);
        if let Some((name, value)) = welcome
            .reported
            .iter()
            .find(|(name, _)| **name == *b"application_name")
        {
            encode::parameter_status(out, name, application_name.as_deref().unwrap_or(value));
        }
        encode::backend_key_data(out, &card.cancel_key);
        encode::ready_for_query(out, TransactionStatus::Idle);
    });
    let driver = Driver::of(
        trace.context().0.tag("db_driver"),
        application_name.as_deref(),
    );
    let mut session = ClientSession::new(
        terms.settings.mode,
        trace,
        wishes.all,
        welcome.server_version,
    );
    session.own = wishes.own;
    session.session_state = terms.settings.session_state;
    session.listen = terms.settings.listen_in_transaction_mode;
    session.driver = driver;
    Ok(Prepared {
        pool,
        session,
        card,
        server: None,
    })
}

/// What a client reads whose startup packet has options that are none.
fn in_words_of(texts: ErrorTexts, mut refused: ErrorResponse) -> ErrorResponse {
    if texts == ErrorTexts::PgBouncer && refused.code == SqlState::SYNTAX_ERROR {
        refused.message = "unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed".into();
    }
    refused
}

/// PgBouncer's words, which people search their logs for.
fn log_parting(shard: &Shard, pool: &ServerPool, about: &ClientAbout, parting: &Parting, age: u64) {
    let peer = about.whereabouts();
    let why = match parting {
        Parting::Left => "client close request".into(),
        Parting::ClientLost(error) => format!("client connection lost: {error}"),
        Parting::ServerLost => "server conn crashed?".into(),
        Parting::ServerEnded => "server ended the session".into(),
        Parting::Violation(violation) => violation.to_string(),
        Parting::Refused(refusal) => refusal.response().message.into_owned(),
        Parting::TimedOut(limit) => limit.as_str().into(),
        Parting::Dismissed(why) => why.as_str().into(),
    };
    let is_told = !matches!(parting, Parting::Left | Parting::ClientLost(_));
    let identity = &pool.terms().identity;
    log_closing(shard, &identity.database, &identity.user, &peer, &why, age);
    if is_told && shard.config().log.pooler_errors {
        tracing::warn!(
            database = &*identity.database,
            user = &*identity.user,
            peer,
            "pooler error: {why}"
        );
    }
}

fn log_closing(shard: &Shard, database: &str, user: &str, peer: &str, why: &str, age: u64) {
    if shard.config().log.disconnections {
        tracing::info!(database, user, peer, "closing because: {why} (age={age}s)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rests_by_the_thousand_is_small() {
        // A task of 128 bytes has room for so much, and memory for the others comes in pieces of 640 and 384.
        assert!(size_of::<Service>() <= 24);
        assert!(size_of::<Link>() <= 640);
        assert!(size_of::<SessionCard>() + 2 * size_of::<usize>() <= 384);
    }
}
