//! What anybody may read: CA certificates, revocation lists, answers of OCSP, the page.

use base64ct::{Base64, Encoding as _};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ETAG, HeaderMap, LAST_MODIFIED};
use hyper::{Method, Request, StatusCode};
use sallyport_ca::{UnixTime, pem};

use crate::answer::{self, Reply, cached, not_found, reply, text, uncached, with};
use crate::conditional;
use crate::route::{Route, percent_decode};
use crate::serve::{Visitor, body, is_get};
use crate::{Crl, Endpoint, Office, page};

/// How long caches may keep a list although a newer one may be there at once, seconds.
const MAX_AGE: u64 = 300;
/// The same of an answer of OCSP.
const OCSP_AGE: u64 = 60;
/// The same of a CA's certificate, which never changes, but for which of them are in force.
const CA_AGE: u64 = 3_600;
/// An OCSPResponse that is an error is this long, RFC 6960 §4.2.1.
const OCSP_ERROR: usize = 5;

pub(crate) async fn answer<O: Office>(
    endpoint: &Endpoint<O>,
    route: Route<'_>,
    request: Request<Incoming>,
    visitor: &Visitor,
) -> Reply {
    if let Route::Ocsp(path) = route {
        return ocsp(endpoint, path, request).await.unwrap_or_else(|refusal| refusal);
    }
    if !is_get(&request) {
        return answer::only("GET");
    }
    let office = &*endpoint.office;
    match route {
        Route::Page => page::answer(office.authority(0), &office.names(), visitor.kind, office.scep_ca().is_some()),
        Route::CaPem => {
            let all: String =
                office.authorities().iter().map(|der| pem::encode("CERTIFICATE", der).to_string()).collect();
            cached(reply(StatusCode::OK, "application/x-pem-file", all), MAX_AGE)
        }
        Route::Authority(number) => match office.authority(number) {
            Some(der) => cached(reply(StatusCode::OK, "application/pkix-cert", der), CA_AGE),
            None => not_found(),
        },
        Route::Crl(..) | Route::DeltaCrl(..) => {
            let list = async {
                match route {
                    Route::Crl(issuer, shard) => office.crl(issuer, shard).await,
                    Route::DeltaCrl(issuer, shard) => office.delta_crl(issuer, shard).await,
                    _ => None,
                }
            };
            match tokio::time::timeout(endpoint.limits.answer_time, list).await {
                Ok(Some(list)) => crl(&list, request.headers(), endpoint.clock.unix()),
                Ok(None) => not_found(),
                Err(_) => answer::busy(endpoint.limits.pause.0),
            }
        }
        Route::Ocsp(_) | Route::Est(_) | Route::Scep => not_found(), // not sent here
    }
}

/// A list, or that what is kept of it elsewhere is still right (RFC 9110 §13). Two controllers sign lists of the same number each in its
/// own way, so what names them is weak.
fn crl(list: &Crl, asked: &HeaderMap, now: UnixTime) -> Reply {
    let tag = format!("W/\"{:x}\"", list.number);
    let reply = if conditional::is_fresh(asked, &tag, list.this_update) {
        let mut unchanged = Reply::default();
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        unchanged
    } else {
        reply(StatusCode::OK, "application/pkix-crl", list.der.clone())
    };
    let left = u64::try_from(list.next_update.0.saturating_sub(now.0)).unwrap_or(0);
    let mut reply = with(reply, ETAG, &tag);
    if list.this_update.0 != 0 {
        reply = with(reply, LAST_MODIFIED, &conditional::http_date(list.this_update));
    }
    cached(reply, left.min(MAX_AGE))
}

async fn ocsp<O: Office>(
    endpoint: &Endpoint<O>,
    path: Option<&str>,
    request: Request<Incoming>,
) -> Result<Reply, Reply> {
    let limits = &endpoint.limits;
    let get = is_get(&request);
    let asked: Bytes = match path {
        Some(path) if get => {
            let text = percent_decode(path);
            let text = core::str::from_utf8(&text).unwrap_or("?");
            let bad = |_| self::text(StatusCode::BAD_REQUEST, "behind /ocsp/ a request in base64 is expected");
            Base64::decode_vec(text).map_err(bad)?.into()
        }
        _ if *request.method() == Method::POST => body(request, limits.ocsp_body, limits.body_time).await?,
        None if get => return Err(text(StatusCode::BAD_REQUEST, "behind /ocsp/ a request in base64 is expected")),
        _ => return Err(answer::only("GET, POST")),
    };
    if asked.len() > limits.ocsp_body {
        return Err(text(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large"));
    }
    let Ok(der) = tokio::time::timeout(limits.answer_time, endpoint.office.ocsp(asked.to_vec())).await else {
        return Err(answer::busy(limits.pause.0));
    };
    let good = der.len() > OCSP_ERROR;
    let reply = reply(StatusCode::OK, "application/ocsp-response", der);
    Ok(if get && good { cached(reply, OCSP_AGE) } else { uncached(reply) })
}
