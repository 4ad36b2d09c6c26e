//! `pgspan dev`: a throwaway PostgreSQL, the proxy in front of it, and eyes to see what comes out.

pub mod collector;
pub mod postgres;
