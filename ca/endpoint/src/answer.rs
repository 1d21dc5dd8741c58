//! Answers. Their headers are few: strongSwan's `pki` 5.9.8 wants all of them in the first 1,024 bytes that it reads.

use core::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};

pub(crate) type Reply = Response<Full<Bytes>>;

const PLAIN: &str = "text/plain; charset=utf-8";
/// Longest text to a stranger, characters.
const MAX_TEXT: usize = 500;

pub(crate) fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// One line for a person.
pub(crate) fn text(status: StatusCode, text: &str) -> Reply {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect();
    line.push('\n');
    reply(status, PLAIN, line)
}

pub(crate) fn with(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    if let Ok(value) = HeaderValue::from_str(value) {
        reply.headers_mut().insert(name, value);
    }
    reply
}

/// May be kept by caches for this many seconds.
pub(crate) fn cached(reply: Reply, seconds: u64) -> Reply {
    with(reply, CACHE_CONTROL, &format!("public, max-age={seconds}"))
}

pub(crate) fn uncached(reply: Reply) -> Reply {
    with(reply, CACHE_CONTROL, "no-store")
}

/// Come again; whole seconds, RFC 7030 §4.2.3, and never at once.
pub(crate) fn later(reply: Reply, after: Duration) -> Reply {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    with(reply, RETRY_AFTER, &seconds.max(1).to_string())
}

pub(crate) fn too_many(after: Duration, why: &str) -> Reply {
    later(text(StatusCode::TOO_MANY_REQUESTS, why), after)
}

pub(crate) fn busy(after: Duration) -> Reply {
    later(text(StatusCode::SERVICE_UNAVAILABLE, "not now: try again later"), after)
}

/// Asks for HTTP Basic, RFC 7030 §3.2.3.
pub(crate) fn authenticate(reply: Reply) -> Reply {
    with(reply, WWW_AUTHENTICATE, "Basic realm=\"enrollment token\"")
}

/// Without a body: Bouncy Castle 1.72 gives up where a 202, or the 401 that asks for a token, has one.
pub(crate) fn bare(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

pub(crate) fn only(methods: &'static str) -> Reply {
    with(text(StatusCode::METHOD_NOT_ALLOWED, "not with this method"), ALLOW, methods)
}

pub(crate) fn not_found() -> Reply {
    text(StatusCode::NOT_FOUND, "nothing is here; / says what there is")
}

/// And the connection ends: what is left of the request is not read.
pub(crate) fn closing(reply: Reply) -> Reply {
    with(reply, CONNECTION, "close")
}
