//! The HTTP of SCEP, RFC 8894 §4. Its messages are the office's.

use base64ct::{Base64, Encoding as _};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use sallyport_ca::cms::certs_only;
use sallyport_ca::scep::{CA_RA_CERTIFICATES, CAPABILITIES, PKI_MESSAGE};

use crate::answer::{self, Reply, closing, reply, text};
use crate::route::query;
use crate::serve::{Visitor, body, is_get};
use crate::{Endpoint, Office, ScepAnswer};

pub(crate) async fn answer<O: Office>(endpoint: &Endpoint<O>, request: Request<Incoming>, visitor: &Visitor) -> Reply {
    let parameters = request.uri().query().unwrap_or("").to_owned();
    let post = *request.method() == Method::POST;
    if !post && !is_get(&request) {
        return answer::only("GET, POST");
    }
    match query(&parameters, "operation").unwrap_or_default().as_slice() {
        b"GetCACaps" if endpoint.office.scep_ca().is_none() => off(),
        // The same whichever CA is named.
        b"GetCACaps" => answer::uncached(reply(StatusCode::OK, "text/plain", CAPABILITIES)),
        b"GetCACert" => match endpoint.office.scep_ca().as_deref() {
            None | Some([]) => off(),
            Some([only]) => reply(StatusCode::OK, "application/x-x509-ca-cert", only.clone()),
            Some(all) => reply(StatusCode::OK, CA_RA_CERTIFICATES, certs_only(all)),
        },
        b"PKIOperation" => operation(endpoint, request, &parameters, post, visitor).await.unwrap_or_else(|r| r),
        _ => text(StatusCode::BAD_REQUEST, "operation must be GetCACaps, GetCACert or PKIOperation"),
    }
}

async fn operation<O: Office>(
    endpoint: &Endpoint<O>,
    request: Request<Incoming>,
    parameters: &str,
    post: bool,
    visitor: &Visitor,
) -> Result<Reply, Reply> {
    if endpoint.office.scep_ca().is_none() {
        return Err(closing(off()));
    }
    // What the envelope holds is seen only when it is open: whoever has guessed must wait with whatever he brings.
    endpoint.may_try(visitor)?;
    let limits = &endpoint.limits;
    let message = if post {
        body(request, limits.body, limits.body_time).await?.to_vec()
    } else {
        let mut text = query(parameters, "message").unwrap_or_default();
        // Some clients do not escape the plus sign, and something on the way takes it for a blank.
        text.iter_mut().filter(|b| **b == b' ').for_each(|b| *b = b'+');
        text.retain(|b| !b.is_ascii_whitespace());
        let text = core::str::from_utf8(&text).unwrap_or("?");
        Base64::decode_vec(text).map_err(|_| self::text(StatusCode::BAD_REQUEST, "message must be base64"))?
    };
    if message.is_empty() {
        return Err(text(StatusCode::BAD_REQUEST, "the message is empty"));
    }
    let asked = endpoint.office.scep(message, visitor.address);
    match tokio::time::timeout(limits.answer_time, asked).await {
        Ok(ScepAnswer::Reply { der, token }) => {
            if let Some(right) = token {
                endpoint.tried(visitor, right);
            }
            Ok(answer::uncached(reply(StatusCode::OK, PKI_MESSAGE, der)))
        }
        Ok(ScepAnswer::Invalid(why)) => Err(text(StatusCode::BAD_REQUEST, &why)),
        Ok(ScepAnswer::Busy { retry_after }) => Err(answer::busy(retry_after)),
        Err(_) => Err(answer::busy(limits.pause.0)),
    }
}

fn off() -> Reply {
    text(StatusCode::NOT_FOUND, "SCEP is off here")
}
