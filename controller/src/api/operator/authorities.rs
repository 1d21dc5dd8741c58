//! The authorities: roots, and issuing authorities below them.

use std::collections::BTreeMap;
use std::time::Duration;

use sallyport_ca::{KeyAlgorithm, NameConstraints, Subtree};
use sallyport_proto::v1;
use tonic::Status;

use super::super::caller::Caller;
use super::OperatorService;
use super::search::{AT_A_TIME, aside};
use crate::app::Core;
use crate::authority::{self, algorithm_to_proto};
use crate::state::{Action, COMPROMISED_LEVEL, RetireIssuer};

/// How long the controllers may take to have certificates of another authority, and how often that is looked at.
const MOVING: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(200);

/// Counts the live certificates of each.
fn count(core: &Core, authorities: &mut [v1::AuthorityInfo]) {
    // Roots issued certificates before there were issuing authorities, and so before there was a second root.
    let first = authorities.iter().position(|a| a.is_root);
    let (now_ms, mut before) = (core.now_ms(), u64::MAX);
    loop {
        let state = core.node.shared().read();
        let mut seen = 0;
        for row in state.certificates_before(before).take(AT_A_TIME) {
            (before, seen) = (row.number, seen + 1);
            if row.revoked_ms != 0 || row.not_after_ms <= now_ms || row.profile() == v1::CertificateProfile::Root {
                continue;
            }
            let of = match row.issuer {
                0 => first,
                number => authorities.iter().position(|a| !a.is_root && a.number == number),
            };
            if let Some(authority) = of.and_then(|at| authorities.get_mut(at)) {
                authority.certificates += 1;
            }
        }
        if seen < AT_A_TIME {
            break;
        }
    }
}

/// The name constraints that are asked for.
fn constraints(request: &v1::AddIssuerRequest) -> Result<NameConstraints, sallyport_ca::Error> {
    let domains = |texts: &[String]| texts.iter().map(|text| Subtree::dns(text)).collect::<Result<Vec<_>, _>>();
    let networks = |texts: &[String]| texts.iter().map(|text| Subtree::ip(text)).collect::<Result<Vec<_>, _>>();
    let permitted = [domains(&request.permit_dns)?, networks(&request.permit_ip)?].concat();
    NameConstraints::new(permitted, [domains(&request.exclude_dns)?, networks(&request.exclude_ip)?].concat())
}

impl OperatorService {
    pub(super) async fn do_list_authorities(
        &self,
        _caller: &Caller,
        _request: v1::ListAuthoritiesRequest,
    ) -> Result<v1::ListAuthoritiesResponse, Status> {
        let mut authorities = {
            let state = self.core.node.shared().read();
            let in_force = state.root_number();
            let roots = state.roots.iter().map(|(number, row)| v1::AuthorityInfo {
                number: *number,
                is_root: true,
                certificate: row.certificate.clone(),
                key_algorithm: self.root_kind(&row.certificate).into(),
                has_key: !row.sealed_key.is_empty(),
                retired_unix_ms: state.root_life(*number).retired_ms,
                in_force: *number == in_force,
                ..Default::default()
            });
            let issuers = state.issuers.iter().map(|(number, row)| v1::AuthorityInfo {
                number: *number,
                is_root: false,
                certificate: row.certificate.clone(),
                key_algorithm: row.key_algorithm,
                root: row.root,
                retired_unix_ms: row.retired_ms,
                has_key: !row.sealed_key.is_empty(),
                certificates: 0,
                in_force: false,
                compromised_unix_ms: row.compromised_ms,
            });
            roots.chain(issuers).collect::<Vec<_>>()
        };
        let core = self.core.clone();
        let authorities = aside(move || {
            count(&core, &mut authorities);
            authorities
        })
        .await?;
        Ok(v1::ListAuthoritiesResponse { authorities })
    }

    /// Kind of a root's key; unspecified for one that is not made here.
    fn root_kind(&self, certificate: &[u8]) -> v1::KeyAlgorithm {
        let spki = sallyport_ca::Certificate::from_der(certificate).map(|c| c.spki_der());
        let public = spki.and_then(|spki| sallyport_ca::PublicKey::from_spki_der(&spki));
        public.map_or(v1::KeyAlgorithm::Unspecified, |public| algorithm_to_proto(public.algorithm()))
    }

    pub(super) async fn do_add_issuer(
        &self,
        caller: &Caller,
        request: v1::AddIssuerRequest,
    ) -> Result<v1::AddIssuerResponse, Status> {
        let kind = KeyAlgorithm::ALL.into_iter().find(|k| algorithm_to_proto(*k) == request.key_algorithm());
        let kind = kind.ok_or_else(|| Status::invalid_argument("key_algorithm: say which kind of key"))?;
        let constraints = constraints(&request).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let wanted = authority::Wanted { key: kind, constraints };
        let numbers = authority::add_issuers(&self.core, vec![wanted], request.replace).await?;
        let number = numbers.first().copied().unwrap_or_default();
        tracing::info!(operator = %caller.name, number, %kind, "an operator made an issuing authority");
        Ok(v1::AddIssuerResponse { number })
    }

    /// Whether the newest certificate of a controller is below an issuing authority.
    fn shows_below(&self, issuer: u64) -> bool {
        let state = self.core.node.shared().read();
        let mut newest = BTreeMap::new();
        for row in state.certificates_of_members().filter(|row| row.profile() == v1::CertificateProfile::Controller) {
            let of_member = newest.entry(row.member).or_insert(row);
            if row.number > of_member.number {
                *of_member = row;
            }
        }
        newest.values().any(|row| row.issuer == issuer && row.revoked_ms == 0)
    }

    pub(super) async fn do_retire_issuer(
        &self,
        caller: &Caller,
        request: v1::RetireIssuerRequest,
    ) -> Result<v1::RetireIssuerResponse, Status> {
        let v1::RetireIssuerRequest { number, compromised } = request;
        if compromised {
            let (root, reached) = {
                let state = self.core.node.shared().read();
                (state.issuers.get(&number).map(|row| row.root), state.level() >= COMPROMISED_LEVEL)
            };
            if !reached {
                return Err(Status::failed_precondition(
                    "some controllers run software that does not know this yet: upgrade all of them (sallyport cluster status)",
                ));
            }
            // Only the root says to others whom its authorities are to be told from: it signs the list that names this one.
            if let Some(root) = root {
                self.core.root_authority_of(root)?;
            }
            // First the controllers have other certificates: else nobody would believe them until then.
            let retire = RetireIssuer { number, compromised: false };
            self.change(caller, "retire issuer", Action::RetireIssuer(retire)).await?;
            let moved = async {
                while self.shows_below(number) {
                    tokio::time::sleep(LOOK).await;
                }
            };
            let _ = tokio::time::timeout(MOVING, moved).await; // one that is away does not keep the others waiting
        }
        let command = RetireIssuer { number, compromised };
        let what = if compromised { "revoke issuer" } else { "retire issuer" };
        self.change(caller, what, Action::RetireIssuer(command)).await?;
        Ok(v1::RetireIssuerResponse {})
    }
}
