//! What is known of the name that a client comes by.

use std::sync::Arc;

use super::rules::{Proof, Rules};
use super::{AdmissionError, Gate};
use crate::auth::hba;
use crate::auth::held::Held;
use crate::auth_query::{Answer, InquiryError};
use crate::config::choices::ErrorTexts;
use crate::config::secret::Secret;
use crate::session::client_login::Challenge;

/// What is known of a name.
pub(super) struct Standing {
    /// Whether there is such a user.
    pub(super) is_known: bool,
    /// Whether a server was asked for it.
    pub(super) was_asked: bool,
    /// What a server holds of the password.
    pub(super) password: Option<Secret>,
    /// What the password is checked by, a user's or not.
    pub(super) held: Arc<Held>,
    /// Why the server that should know more has not said so.
    pub(super) unanswered: Option<InquiryError>,
}

impl Gate {
    /// Looks the name up in the configuration, and asks a server where it is not there with a password.
    ///
    /// A server that can't be asked is the error at once where no exchange follows, or where PgBouncer's words are wanted; else
    /// the exchange comes first, as for every name.
    pub(super) async fn standing(
        &self,
        rules: &Rules,
        visitor: &hba::Visitor<'_>,
        proof: Proof,
    ) -> Result<Standing, AdmissionError> {
        let user = visitor.user;
        let configured = rules.config.user(user);
        // Who is configured without a password may have one on the server.
        let is_to_be_asked = match configured.map(|user| &user.password) {
            _ if proof == Proof::Any => false,
            Some(Some(_)) => false,
            Some(None) | None => true,
        };
        let asked = match is_to_be_asked {
            true => self.ask(rules, visitor).await,
            false => Ok(None),
        };
        let is_configured = configured.is_some_and(|user| user.is_known);
        let stand_in = || match proof.is_exchange() {
            true => Arc::new(self.stand_in(rules, user)),
            false => Arc::clone(&rules.nobody),
        };
        let own = || rules.held(user).unwrap_or_else(stand_in);
        Ok(match asked {
            Ok(None) => Standing {
                is_known: is_configured,
                was_asked: false,
                password: None,
                held: own(),
                unanswered: None,
            },
            Ok(Some(answer)) => Standing {
                is_known: is_configured || answer.is_known,
                was_asked: true,
                password: answer.password,
                held: answer.held,
                unanswered: None,
            },
            Err(error) if proof.is_exchange() && texts(rules) == ErrorTexts::PostgreSql => {
                Standing {
                    is_known: is_configured,
                    was_asked: true,
                    password: None,
                    held: own(),
                    unanswered: Some(error),
                }
            }
            Err(error) => return Err(AdmissionError::inquiry(error)),
        })
    }

    /// Why a server would not say anything about a user who has failed to prove its name, if it would not: as if it had been asked.
    pub(super) async fn unanswered(
        &self,
        rules: &Rules,
        visitor: &hba::Visitor<'_>,
    ) -> Option<InquiryError> {
        match texts(rules) {
            ErrorTexts::PostgreSql => self.ask(rules, visitor).await.err(),
            ErrorTexts::PgBouncer => None,
        }
    }

    /// What a server says about the name; `None` where there is none to be asked.
    async fn ask(
        &self,
        rules: &Rules,
        visitor: &hba::Visitor<'_>,
    ) -> Result<Option<Answer>, InquiryError> {
        let Some(inquiry) = rules.inquiry(visitor.database)? else {
            return Ok(None);
        };
        if self.is_disabled(&inquiry.place) {
            return Err(InquiryError::Disabled(inquiry.place));
        }
        let otherwise = rules.likeness(visitor.user);
        // Boxed, as what is rare: the future of a login is moved a few times.
        let asking = self
            .inquiries
            .ask(&inquiry, visitor.user, otherwise, self.clock);
        Box::pin(asking).await.map(Some)
    }

    /// What stands in for a user whom nobody was asked about.
    fn stand_in(&self, rules: &Rules, user: &str) -> Held {
        let seen = rules
            .asks_servers
            .then(|| self.inquiries.likeness(user, &rules.making));
        let likeness = seen.flatten().unwrap_or_else(|| rules.likeness(user));
        Held::ready_stand_in(user.as_bytes(), likeness, &rules.making)
    }
}

impl Proof {
    /// Whether something is asked of the client within the protocol.
    pub(super) fn is_exchange(self) -> bool {
        matches!(self, Self::Challenge(challenge) if challenge != Challenge::Nothing)
    }
}

fn texts(rules: &Rules) -> ErrorTexts {
    rules.config.auth.error_texts
}
