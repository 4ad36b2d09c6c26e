//! A worker: one thread, one runtime, one shard of the clients. Per query nothing crosses a thread.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::runtime::{self, Handle, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use crate::admission::Admitted;
use crate::allowance::Allowances;
use crate::cancel;
use crate::client::Service;
use crate::config::Config;
use crate::net::timer;
use crate::protocol::cancel_key::CancelKey;
use crate::shard::Shard;
use crate::spread::Spreads;
use crate::telemetry::WorkerTelemetry;
use crate::telemetry::labels::CancelOutcome;
use crate::telemetry::registry::Registry;
use crate::telemetry::tables::Holder;

/// Letters that may wait for a worker; senders wait for room.
const MAILBOX: usize = 1024;

/// What others tell a worker.
#[derive(Debug)]
pub enum Mail {
    /// A client that has logged in.
    Client(Box<Admitted>),
    /// Somebody wants a query cancelled; they are told when that has been passed on, or has come to nothing.
    Cancel(CancelKey, oneshot::Sender<CancelOutcome>),
    /// Another configuration holds from now on.
    Reload(Arc<Config>),
    /// Clients that are idle are sent away, the others when they are.
    Drain,
    /// Somebody wants to know or to change something on the worker's shard: see [`Worker::ask`].
    Ask(Question),
}

/// What is done on a worker's thread, with its shard, for somebody on another thread.
pub struct Question(Asking);

type Asking = Box<dyn FnOnce(&Rc<Shard>) + Send>;

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").finish_non_exhaustive()
    }
}

/// A worker, as others see it.
#[derive(Debug)]
pub struct Worker {
    mail: mpsc::Sender<Mail>,
}

impl Worker {
    /// Starts a worker's thread. Call it on a runtime with timers: they serve the worker too, so it has to outlive it.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub fn start(
        number: u8,
        workers: usize,
        config: Arc<Config>,
        registry: Arc<Registry>,
        allowances: Arc<Allowances>,
        spreads: Arc<Spreads>,
        telemetry: WorkerTelemetry,
    ) -> io::Result<Self> {
        let (mail, mailbox) = mpsc::channel(MAILBOX);
        let timers = Handle::current();
        std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                timer::keep_by(timers);
                let runtime = match runtime::Builder::new_current_thread()
                    .enable_io()
                    .build_local(LocalOptions::default())
                {
                    Ok(runtime) => runtime,
                    // Whoever sends mail finds that nobody is there.
                    Err(error) => return tracing::error!(%error, "a worker has no runtime"),
                };
                let shard = Rc::new(Shard::new(
                    number, workers, config, registry, allowances, spreads, telemetry,
                ));
                runtime.block_on(run(shard, mailbox));
            })?;
        Ok(Self { mail })
    }

    /// Sends a letter, waiting for room in the mailbox. Whether the worker still lives.
    pub async fn send(&self, mail: Mail) -> bool {
        self.mail.send(mail).await.is_ok()
    }

    /// What `question` finds on the worker's shard, owned. It runs on the worker's thread between two polls of its clients, so it
    /// is to be short. `None` where the worker has ended.
    ///
    /// Cancel safe: a question that was sent is answered, and its answer dropped.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Rc<Shard>) -> T + Send + 'static,
    ) -> Option<T> {
        let (done, answer) = oneshot::channel();
        let question = move |shard: &Rc<Shard>| {
            // Whoever asked may have gone.
            let _ = done.send(question(shard));
        };
        self.send(Mail::Ask(Question(Box::new(question)))).await;
        answer.await.ok()
    }

    /// What a future comes to that `question` makes on the worker's thread; `None` where the worker has ended.
    ///
    /// The question is on its way when the future is first polled. Cancel safe like [`Worker::ask`]: what was begun goes on.
    pub fn ask_later<T, F>(
        &self,
        question: impl FnOnce(&Rc<Shard>) -> F + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send + 'static
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
    {
        let mail = self.mail.clone();
        let (done, answer) = oneshot::channel();
        let question = move |shard: &Rc<Shard>| {
            let answering = question(shard);
            tokio::task::spawn_local(async move {
                // Whoever asked may have gone.
                let _ = done.send(answering.await);
            });
        };
        let letter = Mail::Ask(Question(Box::new(question)));
        async move {
            mail.send(letter).await.ok()?;
            answer.await.ok()
        }
    }

    /// Who holds a server, and what for. Nobody where the worker has ended.
    pub async fn holders(&self) -> Vec<Holder> {
        let question = |shard: &Rc<Shard>| {
            let shard = Rc::clone(shard);
            async move { shard.holders().await }
        };
        self.ask_later(question).await.unwrap_or_default()
    }

    /// Waits until the worker has ended, which it does when it was told to drain and its last client has left.
    pub async fn ended(&self) {
        self.mail.closed().await;
    }
}

async fn run(shard: Rc<Shard>, mut mailbox: mpsc::Receiver<Mail>) {
    shard.start_minimums();
    tokio::task::spawn_local(Rc::clone(&shard).keep_time());
    tokio::task::spawn_local(Rc::clone(&shard).make_room());
    while let Some(mail) = tokio::select! {
        mail = mailbox.recv() => mail,
        () = shard.all_left() => None,
    } {
        match mail {
            Mail::Client(admitted) => {
                tokio::task::spawn_local(Service::new(Rc::clone(&shard), admitted));
            }
            Mail::Cancel(key, done) => cancel(&shard, &key, done),
            Mail::Reload(config) => shard.reload(config),
            Mail::Drain => shard.drain(),
            Mail::Ask(Question(question)) => question(&shard),
        }
    }
    shard.close_idle_servers();
}

fn cancel(shard: &Shard, key: &CancelKey, done: oneshot::Sender<CancelOutcome>) {
    let outcome = match shard.session(key) {
        None => CancelOutcome::Unknown,
        Some(card) => match (card.server.borrow().clone(), &*card.ticket.borrow()) {
            (Some(server), _) => {
                tokio::task::spawn_local(async move {
                    let outcome = cancel::forward(&server).await;
                    // Whoever asked may have gone.
                    let _ = done.send(outcome);
                });
                return;
            }
            (None, Some(ticket)) if ticket.cancel() => CancelOutcome::Waiting,
            (None, _) => CancelOutcome::Idle,
        },
    };
    let _ = done.send(outcome);
}
