//! Certificates.

use sallyport_ca::{Profile, Serial};
use sallyport_proto::v1;
use tonic::Status;

use super::super::caller::Caller;
use super::super::convert::{certificate, ended_certificate, key_algorithm, number_token, profile};
use super::super::gateway::dedup_id;
use super::OperatorService;
use super::roles::role_of;
use super::search::search;
use crate::authority::{self, IssueRequest, Owner};
use crate::seal::Request;
use crate::state::{Action, CertificateRow, RevokeCertificate};

/// Alternative names in one request.
const MAX_SANS: usize = 64;
/// Longest name of a gateway, bytes.
const MAX_GATEWAY: usize = 253;
/// Longest reason for a revocation, bytes.
pub(super) const MAX_REASON: usize = 256;

/// A serial number in whatever form an operator writes it: with colons, capital letters, leading zeros.
pub(super) fn serial(text: &str) -> Result<String, Status> {
    let serial: Serial = text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} is no serial number")))?;
    Ok(serial.to_string())
}

impl OperatorService {
    pub(super) async fn do_issue_certificate(
        &self,
        caller: &Caller,
        request: v1::IssueCertificateRequest,
    ) -> Result<v1::IssueCertificateResponse, Status> {
        if request.sans.len() > MAX_SANS {
            return Err(Status::invalid_argument(format!("sans: at most {MAX_SANS}")));
        }
        let profile = profile(request.profile())?;
        self.may(caller, Some(role_of(request.profile())))?;
        let key = key_algorithm(request.key_algorithm(), profile);
        let gateway = request.gateway;
        if !gateway.is_empty() && (profile != Profile::Gateway || gateway.len() > MAX_GATEWAY) {
            return Err(Status::invalid_argument("gateway: the name of one, with a certificate for IKE"));
        }
        let owner = Owner::gateway(&self.core, &gateway);
        let request =
            IssueRequest { profile, name: request.name, sans: request.sans, key, days: request.validity_days };
        let issued = match &caller.request_id {
            Some(name) => {
                let id = dedup_id(&caller.serial, "issue certificate", name);
                authority::issue_once(&self.core, request, owner, Request { id, name }).await?
            }
            None => authority::issue_to(&self.core, request, owner).await?,
        };
        tracing::info!(operator = %caller.name, serial = %issued.record.serial, "issued on an operator's request");
        Ok(v1::IssueCertificateResponse {
            private_key: Some(v1::Secret::new(issued.private_key.to_vec())),
            certificate: issued.certificate,
            chain: issued.chain,
            info: Some(certificate(&issued.record)),
        })
    }

    pub(super) async fn do_list_certificates(
        &self,
        _caller: &Caller,
        request: v1::ListCertificatesRequest,
    ) -> Result<v1::ListCertificatesResponse, Status> {
        let before = number_token(&request.page_token, 10)?.unwrap_or(u64::MAX);
        let now_ms = self.core.now_ms();
        let wanted = request.profile();
        let name = request.name_contains.to_lowercase();
        let fits = move |row: &CertificateRow| {
            (wanted == v1::CertificateProfile::Unspecified || row.profile() == wanted)
                && (!request.live_only || (row.revoked_ms == 0 && row.not_after_ms > now_ms))
                && (name.is_empty() || row.name.to_lowercase().contains(&name))
        };
        let (certificates, next) = search(&self.core, (before, request.page_size), move |state, before, put| {
            let mut rows = state.certificates_before(*before);
            rows.try_for_each(|row| put(&row.number, fits(row).then(|| certificate(row))))
        })
        .await?;
        Ok(v1::ListCertificatesResponse {
            certificates,
            next_page_token: next.map(|number| number.to_string()).unwrap_or_default(),
        })
    }

    pub(super) async fn do_get_certificate(
        &self,
        _caller: &Caller,
        request: v1::GetCertificateRequest,
    ) -> Result<v1::GetCertificateResponse, Status> {
        let serial = serial(&request.serial)?;
        let state = self.core.node.shared().read();
        let info = state.certificates.get(&serial).map(certificate);
        let info = info.or_else(|| state.ended.get(&serial).map(|old| ended_certificate(serial.clone(), &old)));
        let none =
            || Status::not_found(format!("this authority never issued a certificate with serial number {serial}"));
        info.map(|info| v1::GetCertificateResponse { info: Some(info) }).ok_or_else(none)
    }

    pub(super) async fn do_revoke_certificate(
        &self,
        caller: &Caller,
        request: v1::RevokeCertificateRequest,
    ) -> Result<v1::RevokeCertificateResponse, Status> {
        let serial = serial(&request.serial)?;
        if request.reason.len() > MAX_REASON {
            return Err(Status::invalid_argument(format!("reason: at most {MAX_REASON} bytes")));
        }
        self.may_touch(caller, &serial)?;
        let command = RevokeCertificate { serial: serial.clone(), reason: request.reason };
        let done = self.change(caller, "revoke certificate", Action::RevokeCertificate(command)).await?;
        let state = self.core.node.shared().read();
        Ok(v1::RevokeCertificateResponse {
            info: state.certificates.get(&serial).map(certificate),
            ended_sessions: done.ended_sessions,
        })
    }

    pub(super) async fn do_list_roots(
        &self,
        _caller: &Caller,
        _request: v1::ListRootsRequest,
    ) -> Result<v1::ListRootsResponse, Status> {
        let state = self.core.node.shared().read();
        Ok(v1::ListRootsResponse { roots: state.trusted_roots().map(|(_, r)| r.certificate.clone()).collect() })
    }
}
