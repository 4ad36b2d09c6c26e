//! How the process is told to end: by signals, and by SHUTDOWN on the console. Also its other signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::command::Shutdown;
use crate::config::choices::OnSigterm;

/// What the process is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Read the configuration again.
    Reload,
    /// Give no server to anyone.
    Pause,
    /// Go on.
    Resume,
    /// End, in this way.
    End(Ending),
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Resting clients are sent away, the others after their transaction.
    Drain,
    /// When the last client has left.
    WhenClientsLeft,
    /// When no server is in use.
    WhenServersReleased,
    /// At once.
    Now,
}

impl From<Shutdown> for Ending {
    fn from(shutdown: Shutdown) -> Self {
        match shutdown {
            Shutdown::Immediate => Self::Now,
            Shutdown::WaitForServers => Self::WhenServersReleased,
            Shutdown::WaitForClients => Self::WhenClientsLeft,
        }
    }
}

/// The signals that the process listens to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
    pause: Signal,
    resume: Signal,
    on_sigterm: OnSigterm,
}

impl Signals {
    /// SIGTERM means what the configuration says.
    ///
    /// # Errors
    /// If the system does not let us listen.
    pub fn new(on_sigterm: OnSigterm) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
            pause: signal(SignalKind::user_defined1())?,
            resume: signal(SignalKind::user_defined2())?,
            on_sigterm,
        })
    }

    /// The next one. The lines are PgBouncer's. Cancel safe.
    pub async fn next(&mut self) -> Asked {
        let (terminate, interrupt) = match self.on_sigterm {
            OnSigterm::Drain => (Ending::Drain, Ending::Drain),
            OnSigterm::WaitForClients => (Ending::WhenClientsLeft, Ending::WhenServersReleased),
        };
        tokio::select! {
            _ = self.terminate.recv() => {
                match terminate {
                    Ending::WhenClientsLeft => tracing::info!("got SIGTERM, shutting down, waiting for all clients disconnect"),
                    _ => tracing::info!("got SIGTERM, shutting down"),
                }
                Asked::End(terminate)
            }
            _ = self.interrupt.recv() => {
                match interrupt {
                    Ending::WhenServersReleased => {
                        tracing::info!("got SIGINT, shutting down, waiting for all servers connections to be released");
                    }
                    _ => tracing::info!("got SIGINT, shutting down"),
                }
                Asked::End(interrupt)
            }
            _ = self.quit.recv() => {
                tracing::info!("got SIGQUIT, fast exit");
                Asked::End(Ending::Now)
            }
            _ = self.hang_up.recv() => {
                tracing::info!("got SIGHUP, re-reading config");
                Asked::Reload
            }
            _ = self.pause.recv() => {
                tracing::info!("got SIGUSR1, pausing all activity");
                Asked::Pause
            }
            _ = self.resume.recv() => {
                tracing::info!("got SIGUSR2, continuing from PAUSE");
                Asked::Resume
            }
        }
    }

    /// While the process ends already: what is for an end at once.
    pub async fn next_while_ending(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return tracing::info!("got SIGTERM while shutting down, fast exit"),
                _ = self.interrupt.recv() => return tracing::info!("got SIGINT while shutting down, fast exit"),
                _ = self.quit.recv() => return tracing::info!("got SIGQUIT, fast exit"),
                _ = self.hang_up.recv() => tracing::info!("got SIGHUP while shutting down, ignoring"),
                _ = self.pause.recv() => tracing::info!("got SIGUSR1 while shutting down, ignoring"),
                _ = self.resume.recv() => tracing::info!("got SIGUSR2 while shutting down, ignoring"),
            }
        }
    }
}
