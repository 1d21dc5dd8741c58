//! A machine against servers of EST over real TLS on the loopback interface.

mod endpoint;
mod first;
mod install;
mod listed;
mod renewal;
mod standing;
mod support;
mod token;
