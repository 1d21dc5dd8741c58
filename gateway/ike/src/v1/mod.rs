//! IKEv1: what an ISAKMP SA knows, and one file for each exchange.

pub(crate) mod dpd;
pub(crate) mod informational;
pub(crate) mod ipsec_sa;
pub(crate) mod isakmp_sa;
pub(crate) mod keymat;
pub(crate) mod main_mode;
pub(crate) mod peer;
pub(crate) mod quick_mode;
