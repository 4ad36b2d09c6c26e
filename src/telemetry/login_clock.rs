//! How long each part of a login takes, and how many are in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::instrument::label;
use crate::telemetry::metrics::ProcessMetrics;

label! {
    /// The parts of a client's login, in their order.
    LoginPhase {
        /// From the accepted connection to its startup packet, TLS not counted.
        Startup = "startup",
        /// The TLS handshake.
        Tls = "tls",
        /// From the startup packet to the proof of who it is.
        Authentication = "authentication",
        /// From there to the first ReadyForQuery: its worker, and a server where one has to be asked.
        Welcome = "welcome",
    }
}

/// Times one login. Whoever lets it go before the end has come counts for nothing but the phases that were over.
#[derive(Debug)]
pub struct LoginClock {
    process: Arc<ProcessMetrics>,
    phase: LoginPhase,
    since: Instant,
    /// What the startup phase had taken when TLS came in between.
    startup: Duration,
}

impl LoginClock {
    /// Of a connection that was accepted at this time.
    pub fn start(process: Arc<ProcessMetrics>, accepted_at: Instant) -> Self {
        process.logins_in_phase.of(LoginPhase::Startup).increase();
        Self {
            process,
            phase: LoginPhase::Startup,
            since: accepted_at,
            startup: Duration::ZERO,
        }
    }

    /// A phase is over, this one begins; behind TLS the startup phase goes on.
    pub fn enter(&mut self, phase: LoginPhase, now: Instant) {
        if (self.phase, phase) == (LoginPhase::Startup, LoginPhase::Tls) {
            self.startup += now.saturating_duration_since(self.since);
        } else {
            self.leave(now);
        }
        self.process.logins_in_phase.of(phase).increase();
        self.process.logins_in_phase.of(self.phase).decrease();
        self.phase = phase;
        self.since = now;
    }

    /// The last phase is over.
    pub fn finish(self, now: Instant) {
        self.leave(now);
    }

    fn leave(&self, now: Instant) {
        let mut time = now.saturating_duration_since(self.since);
        if self.phase == LoginPhase::Startup {
            time += self.startup;
        }
        self.process.login_phase_ended(self.phase, time);
    }
}

impl Drop for LoginClock {
    fn drop(&mut self) {
        self.process.logins_in_phase.of(self.phase).decrease();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::registry::tests::now;

    #[test]
    fn tls_is_no_part_of_the_startup_phase() {
        let process = Arc::<ProcessMetrics>::default();
        let start = now();
        let mut login = LoginClock::start(Arc::clone(&process), start);
        let later = |milliseconds| start + Duration::from_millis(milliseconds);
        login.enter(LoginPhase::Tls, later(2));
        login.enter(LoginPhase::Startup, later(22));
        login.enter(LoginPhase::Authentication, later(25));
        login.enter(LoginPhase::Welcome, later(65));
        login.finish(later(66));
        let phases: Vec<(f64, u64)> = (process.login_phases().into_iter())
            .map(|(_, snapshot)| (snapshot.sum_seconds, snapshot.buckets.iter().sum()))
            .collect();
        assert_eq!(phases, [(0.005, 1), (0.02, 1), (0.04, 1), (0.001, 1)]);
    }

    #[test]
    fn each_phase_has_its_time_and_a_login_given_up_leaves_no_trace_in_its_last() {
        let process = Arc::<ProcessMetrics>::default();
        let start = now();
        let mut login = LoginClock::start(Arc::clone(&process), start);
        let in_phases = || {
            process
                .logins_in_phase
                .iter()
                .map(|(_, count)| count)
                .collect::<Vec<_>>()
        };
        assert_eq!(in_phases(), [1, 0, 0, 0]);
        login.enter(LoginPhase::Authentication, start + Duration::from_millis(5));
        assert_eq!(in_phases(), [0, 0, 1, 0]);
        drop(login);
        assert_eq!(in_phases(), [0, 0, 0, 0]);
        let sums: Vec<f64> = (process.login_phases().into_iter())
            .map(|(_, snapshot)| snapshot.sum_seconds)
            .collect();
        assert_eq!(sums, [0.005, 0.0, 0.0, 0.0]);
    }
}
