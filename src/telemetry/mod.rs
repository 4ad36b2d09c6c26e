//! What the people in front of the screen see: metrics, slow queries, spans, log lines.

pub mod exposition;
pub mod families;
pub mod instrument;
pub mod metrics;
pub mod registry;
pub mod slow_query;
