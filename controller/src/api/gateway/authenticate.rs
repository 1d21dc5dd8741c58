//! Deciding on a user: authentication, then authorization and lease in one command.

use std::net::IpAddr;

use sallyport_proto::v1;
use sallyport_proto::v1::authenticate_response::Decision;
use std::net::Ipv4Addr;
use tonic::{Request, Status};

use super::super::caller::Caller;
use super::super::convert::{session_text, source};
use super::super::error::{conflict, done};
use super::{GatewayService, cut, cut_machine, dedup_id, request_id};
use crate::app::Sight;
use crate::auth::lockout::{Bound, Guess, Pair, Wait};
use crate::auth::{Proof, Verdict, method_name, user_key};
use crate::metrics::AuthOutcome;
use crate::state::{
    Action, ConflictKind, DenialKind, Denied, GATEWAY_FACTOR, Guesser, OpenSession, Opened, Outcome, RecordAttempts,
    SettingsRow, State, UserRow,
};

/// Longest user name, bytes.
const MAX_USER: usize = 256;
/// How often a decision starts anew because the password was changed meanwhile, or a session id was taken.
const TRIES: usize = 4;

/// "wrong user or password", RFC 2759 §6.
const WRONG: u32 = 691;

/// A refusal before the log is asked.
struct Refusal<'a> {
    /// The password that was wrong; it counts as under way until the log has counted it.
    guess: Option<Guess<'a>>,
    outcome: AuthOutcome,
    retry: bool,
    cause: String,
    remedy: String,
}

/// The request, taken apart.
struct Question<'a> {
    caller: &'a Caller,
    member: Option<v1::Member>,
    id: Vec<u8>,
    /// As the client sent it.
    sent: String,
    /// Without the domain.
    name: String,
    key: String,
    method: v1::AuthMethod,
    remote: String,
    source: Option<IpAddr>,
    session_key: u64,
    machine: Option<v1::MachineIdentity>,
    tunnel: Option<v1::TunnelInfo>,
}

/// What a question with the same id came to before.
enum Before {
    /// There was none, or its answer is forgotten.
    Nothing,
    /// The same user was let in.
    Opened,
    /// It was refused, for good: whatever proof comes with it now is not looked at. Otherwise a gateway could try password
    /// after password under one id, and none would count.
    Refused(v1::Reject),
}

impl Question<'_> {
    fn guesser(&self) -> Guesser {
        Guesser::new(&self.key, self.source)
    }

    fn reject_id(&self) -> [u8; 16] {
        dedup_id(&self.caller.name, "reject", &self.id)
    }

    fn answered_before(&self, state: &State, open_id: &[u8; 16]) -> Result<Before, Status> {
        if state.answered(&self.reject_id()).is_some() {
            return Ok(Before::Refused(rejection(false)));
        }
        match state.answered(open_id).and_then(|reply| reply.outcome.as_ref()) {
            Some(Outcome::Opened(opened)) if user_key(&opened.user).1 == self.key => Ok(Before::Opened),
            Some(Outcome::Opened(_)) => Err(Status::invalid_argument(
                "request_id: it was used for another user before; each question has its own",
            )),
            _ => Ok(Before::Nothing),
        }
    }
}

/// A refusal of the authentication step. The gateway is told nothing that a stranger may not know, such as which users there
/// are: the cause is in the audit, under the question's id.
fn rejection(retry: bool) -> v1::Reject {
    v1::Reject {
        error_code: WRONG,
        retry,
        message: client_message(WRONG).to_owned(),
        cause: "the controllers did not accept the user with this proof".into(),
        remedy: "see the cause in their audit: sallyport attempt list --failed".into(),
        phase: v1::Phase::Authentication.into(),
    }
}

impl GatewayService {
    pub(super) async fn do_authenticate(
        &self,
        request: Request<v1::AuthenticateRequest>,
    ) -> Result<v1::AuthenticateResponse, Status> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        request_id(&request.request_id)?;
        if request.user.len() > MAX_USER {
            return Err(Status::invalid_argument(format!("user: at most {MAX_USER} bytes")));
        }
        let method = request.method.ok_or_else(|| Status::invalid_argument("method is missing"))?;
        let (name, key) = user_key(&request.user);
        let mut question = Question {
            caller: &caller,
            member: request.member,
            id: request.request_id,
            name: name.to_owned(),
            key,
            sent: request.user,
            method: v1::AuthMethod::Unspecified,
            source: source(&request.remote),
            remote: cut(request.remote),
            session_key: request.session_key,
            machine: cut_machine(request.machine),
            tunnel: request.tunnel.map(|t| v1::TunnelInfo {
                local: cut(t.local),
                host_name: cut(t.host_name),
                esp_suite: cut(t.esp_suite),
                ..t
            }),
        };
        let mut sight = self.core.sight().await?;
        for _ in 0..TRIES {
            let proof = Proof::from_proto(method.clone()).map_err(Status::invalid_argument)?;
            question.method = proof.method();
            if let Some(decision) = self.decide(&question, proof, sight).await? {
                return Ok(v1::AuthenticateResponse { decision: Some(decision) });
            }
            sight = self.core.clear_sight().await?;
        }
        Err(Status::aborted("the user kept changing while the password was checked; try again"))
    }

    /// One try, by what is in sight; `None` is to begin anew, with a clear one.
    async fn decide(&self, question: &Question<'_>, proof: Proof, sight: Sight) -> Result<Option<Decision>, Status> {
        let core = &self.core;
        let member = match (self.member_in_sight(question.caller, question.member), sight) {
            (Ok(member), _) => member,
            (Err(_), Sight::AsLeader(_)) => return Ok(None),
            (Err(e), Sight::Clear) => return Err(e),
        };
        let open_id = dedup_id(&question.caller.name, "open session", &question.id);
        let (settings, user, repeated) = {
            let state = core.node.shared().read();
            match question.answered_before(&state, &open_id)? {
                Before::Refused(reject) => return Ok(Some(Decision::Reject(reject))),
                Before::Opened => (state.settings(), state.users.get(&question.key).cloned(), true),
                Before::Nothing => (state.settings(), state.users.get(&question.key).cloned(), false),
            }
        };
        let verdict = self.authenticate_user(question, proof, &settings, user.as_ref(), repeated).await?;
        let authenticator_response = match verdict {
            Ok(response) => response,
            Err(refusal) => return self.refuse(question, refusal, sight).await,
        };
        // The row that was checked; apply refuses if it is another by then.
        let credentials_version = user.map_or(0, |u| u.credentials_version);
        let reply = self.open(question, member, open_id, credentials_version, sight).await?;
        Ok(match reply {
            Opening::Opened(opened) => {
                core.metrics.authentication(question.method, AuthOutcome::Accepted);
                Some(Decision::Accept(accept(opened, authenticator_response)))
            }
            Opening::Denied(denied) => {
                core.metrics.authentication(question.method, denial_outcome(denied.kind()));
                Some(Decision::Reject(v1::Reject {
                    error_code: denied.error_code,
                    retry: false,
                    message: client_message(denied.error_code).to_owned(),
                    cause: denied.cause,
                    remedy: denied.remedy,
                    phase: v1::Phase::Authorization.into(),
                }))
            }
            Opening::Again => None,
        })
    }

    /// The authentication: `Ok` holds MS-CHAPv2's answer.
    async fn authenticate_user(
        &self,
        question: &Question<'_>,
        proof: Proof,
        settings: &SettingsRow,
        user: Option<&UserRow>,
        repeated: bool,
    ) -> Result<Result<String, Refusal<'_>>, Status> {
        let core = &self.core;
        if !settings.auth_methods.contains(&question.method.into()) {
            let name = method_name(question.method);
            return Ok(Err(Refusal {
                guess: None,
                outcome: AuthOutcome::MethodNotAllowed,
                retry: false,
                cause: format!("the settings do not allow {name}"),
                remedy:
                    "let the client use an allowed protocol, or allow this one: sallyport setting set auth-methods=LIST"
                        .into(),
            }));
        }
        // A question that was accepted before is answered again even if the user is locked out by now.
        let limit = if repeated { 0 } else { settings.lockout_failures };
        let counted = |pair: &Pair| {
            let (state, now_ms) = (core.node.shared().read(), core.now_ms());
            match pair {
                Pair::From(guesser) => state.wrong_passwords(guesser, now_ms),
                Pair::Through { gateway, user } => state.wrong_passwords_through(gateway, user, now_ms),
            }
        };
        let through = Pair::Through { gateway: question.caller.name.clone(), user: question.key.clone() };
        let bounds = vec![
            Bound { pair: Pair::From(question.guesser()), limit },
            Bound { pair: through, limit: limit.saturating_mul(GATEWAY_FACTOR) },
        ];
        let guess = match core.lockout.begin(bounds, question.reject_id(), counted) {
            Ok(guess) => guess,
            Err(Wait::Busy) => {
                return Err(Status::aborted("other passwords of this user are being checked; try again"));
            }
            Err(Wait::Locked(pair, limit, wait)) => {
                let where_from = match pair {
                    Pair::From(_) => "from this address".to_owned(),
                    Pair::Through { gateway, .. } => format!("through the gateway {gateway}, from several addresses"),
                };
                return Ok(Err(Refusal {
                    guess: None,
                    outcome: AuthOutcome::LockedOut,
                    retry: false,
                    cause: format!(
                        "locked out: {limit} or more wrong passwords for {:?} {where_from}; {wait} s left",
                        question.sent
                    ),
                    remedy: format!(
                        "wait, or let the user try again now: sallyport user unlock {}; check the saved password on the client; \
                         how many and how long is set by sallyport setting set lockout-failures=N lockout-time=SECONDS",
                        question.sent
                    ),
                }));
            }
        };
        let checked = core
            .authenticator()
            .check(&core.sealer, &core.cluster_id(), &question.key, &question.name, user, proof)
            .await?
            .map_err(|_| Status::resource_exhausted("too many passwords wait to be checked; try again"))?;
        let refusal = match (checked, user) {
            (Verdict::Right { authenticator_response }, _) => return Ok(Ok(authenticator_response)),
            (Verdict::NotKept, Some(user)) => Refusal {
                guess: Some(guess),
                outcome: AuthOutcome::PasswordNotKept,
                retry: false,
                cause: format!(
                    "the password of {:?} is not kept in a form that CHAP-MD5 can be checked with",
                    user.name
                ),
                remedy: format!(
                    "let the client use MS-CHAPv2; or sallyport setting set store-chap-secrets=true, and set the password \
                     again: sallyport user passwd {}",
                    user.name
                ),
            },
            (Verdict::Wrong, Some(user)) => Refusal {
                guess: Some(guess),
                outcome: AuthOutcome::WrongPassword,
                retry: true,
                cause: format!("wrong password for user {:?}", user.name),
                remedy: format!("enter the right password, or set a new one: sallyport user passwd {}", user.name),
            },
            (Verdict::Wrong | Verdict::NotKept, None) => Refusal {
                guess: Some(guess),
                outcome: AuthOutcome::UnknownUser,
                retry: true,
                cause: format!("there is no user {:?}", question.sent),
                remedy: format!("check the spelling, or add the user: sallyport user add {}", question.name),
            },
        };
        Ok(Err(refusal))
    }

    async fn open(
        &self,
        question: &Question<'_>,
        member: v1::Member,
        open_id: [u8; 16],
        credentials_version: u64,
        sight: Sight,
    ) -> Result<Opening, Status> {
        let random: [u8; 8] = self.core.sealer.random()?;
        let command = OpenSession {
            session_id: u64::from_be_bytes(random).max(1),
            user: question.key.clone(),
            credentials_version,
            slot: member.slot,
            epoch: member.epoch,
            session_key: question.session_key,
            remote: question.remote.clone(),
            machine: question.machine.clone(),
            tunnel: question.tunnel.clone(),
            method: question.method.into(),
            attempt_id: question.id.clone(),
            guesser: Some(question.guesser()),
        };
        let Some(reply) = self.core.propose_by(sight, open_id, Action::OpenSession(command)).await? else {
            return Ok(Opening::Again);
        };
        match reply.outcome {
            Some(Outcome::Opened(opened)) => Ok(Opening::Opened(opened)),
            Some(Outcome::Denied(denied)) => Ok(Opening::Denied(denied)),
            Some(Outcome::Conflict(c))
                if matches!(c.kind(), ConflictKind::StaleCredentials | ConflictKind::Invalid) =>
            {
                Ok(Opening::Again)
            }
            Some(Outcome::Conflict(c)) => Err(conflict(c)),
            other => Err(Status::internal(format!("unexpected answer {other:?}"))),
        }
    }

    /// Records a refusal of the authentication step, once, and answers it; `None` is to begin anew.
    async fn refuse(
        &self,
        question: &Question<'_>,
        refusal: Refusal<'_>,
        sight: Sight,
    ) -> Result<Option<Decision>, Status> {
        let attempt = v1::Attempt {
            id: question.id.clone(),
            time_unix_ms: self.core.now_ms(),
            gateway: question.caller.name.clone(),
            remote: question.remote.clone(),
            machine: question.machine.clone(),
            user: question.sent.clone(),
            phase: v1::Phase::Authentication.into(),
            outcome: v1::Outcome::Refused.into(),
            cause: refusal.cause,
            remedy: refusal.remedy,
            client_error: WRONG,
            controller_time: true,
            ..v1::Attempt::default()
        };
        let guesser = refusal.guess.as_ref().map(|_| question.guesser());
        // Older software would count for the address only, and its state would be another.
        let counts_gateways = guesser.is_some() && self.core.node.shared().read().level() >= 4;
        let gateway = if counts_gateways { question.caller.name.clone() } else { String::new() };
        let command = Action::RecordAttempts(RecordAttempts { attempts: vec![attempt], guesser, gateway });
        match self.core.propose_by(sight, question.reject_id(), command).await? {
            Some(reply) => drop(done(reply)?),
            None => {
                // It may have been recorded all the same, while another took the lead.
                self.core.clear_sight().await?;
                if self.core.node.shared().read().answered(&question.reject_id()).is_none() {
                    return Ok(None);
                }
            }
        }
        self.core.metrics.authentication(question.method, refusal.outcome);
        drop(refusal.guess);
        // Only MS-CHAPv2 has a way to ask again (RFC 2759 §6).
        let retry = refusal.retry && question.method == v1::AuthMethod::Mschapv2;
        Ok(Some(Decision::Reject(rejection(retry))))
    }
}

/// What the log answered to a wish for a session.
enum Opening {
    Opened(Opened),
    Denied(Denied),
    Again,
}

fn accept(opened: Opened, authenticator_response: String) -> v1::Accept {
    let text = |address: u32| Ipv4Addr::from(address).to_string();
    v1::Accept {
        session_id: session_text(opened.session_id),
        lease: Some(v1::Lease {
            address: text(opened.address),
            router: text(opened.router),
            dns: opened.dns.into_iter().map(text).collect(),
            nbns: opened.nbns.into_iter().map(text).collect(),
            pool: opened.pool,
        }),
        authenticator_response,
        message: "welcome".into(),
        idle_timeout_s: opened.idle_timeout_s,
        session_timeout_s: opened.session_timeout_s,
        mru: opened.mru,
        user: opened.user,
    }
}

/// The client learns no more than the code says.
const fn client_message(code: u32) -> &'static str {
    match code {
        647 => "account disabled",
        649 => "no permission to dial in",
        _ => "wrong user name or password",
    }
}

const fn denial_outcome(kind: DenialKind) -> AuthOutcome {
    match kind {
        DenialKind::Disabled => AuthOutcome::Disabled,
        DenialKind::SessionLimit => AuthOutcome::SessionLimit,
        DenialKind::GatewayFull => AuthOutcome::GatewayFull,
        DenialKind::NoAddress | DenialKind::Unspecified => AuthOutcome::NoAddress,
        DenialKind::MachineRefused => AuthOutcome::MachineRefused,
        DenialKind::UserGone => AuthOutcome::UnknownUser,
    }
}
