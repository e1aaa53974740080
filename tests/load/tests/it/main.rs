//! The load generator as a whole, against a small real server.

#[cfg(test)]
mod program;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod run;
#[cfg(test)]
mod server;
