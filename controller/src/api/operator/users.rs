//! Users and pools.

use std::ops::Bound;

use sallyport_proto::v1;
use tonic::Status;
use zeroize::Zeroizing;

use super::super::caller::Caller;
use super::super::convert::{address, addresses, networks, page, pool_info, user};
use super::OperatorService;
use super::search::search;
use crate::auth::{credentials, user_key};
use crate::state::{
    Action, AddPool, AddUser, Credentials, RemovePool, RemoveUser, SetPassword, SetUserEnabled, UnlockUser, UpdateUser,
};

/// Longest name of a user and longest password, bytes.
const MAX_USER_TEXT: usize = 256;
/// Longest name of a pool, bytes.
const MAX_POOL_NAME: usize = 64;
/// Networks, exclusions and name servers of a pool.
const MAX_NETWORKS: usize = 64;

fn check_user_name(name: &str) -> Result<(), Status> {
    let fits = (1..=MAX_USER_TEXT).contains(&name.len()) && !name.chars().any(char::is_control) && name.trim() == name;
    // A backslash would be taken for the end of a Windows domain, which is not part of the name.
    if fits && !name.contains('\\') {
        return Ok(());
    }
    Err(Status::invalid_argument("name: 1 to 256 bytes without control characters, backslashes, or spaces at its ends"))
}

fn check_comment(comment: &str) -> Result<(), Status> {
    if comment.len() > MAX_USER_TEXT {
        return Err(Status::invalid_argument("comment: at most 256 bytes"));
    }
    Ok(())
}

/// The key in whatever form an operator writes the name.
fn key_of(name: &str) -> String {
    user_key(name).1
}

fn password(secret: Option<v1::Secret>) -> Result<Zeroizing<Vec<u8>>, Status> {
    let password = secret.map(v1::Secret::into_inner).unwrap_or_default();
    let text = std::str::from_utf8(&password).map_err(|_| Status::invalid_argument("password: not UTF-8 text"))?;
    // MS-CHAPv2 cannot carry more (RFC 2759 §4 speaks of 256 characters), and NUL cannot be typed.
    if !(1..=MAX_USER_TEXT).contains(&text.len()) || text.contains('\0') {
        return Err(Status::invalid_argument("password: 1 to 256 bytes"));
    }
    Ok(password)
}

impl OperatorService {
    async fn credentials(&self, key: &str, password: Zeroizing<Vec<u8>>) -> Result<Credentials, Status> {
        let core = &self.core;
        let keep = core.node.shared().read().settings().store_chap_secrets;
        let workers = core.authenticator().workers();
        Ok(credentials(workers, &core.sealer, &core.cluster_id(), key, password, keep).await?)
    }

    pub(super) async fn do_add_user(
        &self,
        caller: &Caller,
        request: v1::AddUserRequest,
    ) -> Result<v1::AddUserResponse, Status> {
        check_user_name(&request.name)?;
        check_comment(&request.comment)?;
        let password = password(request.password)?;
        let key = key_of(&request.name);
        let command = AddUser {
            credentials: Some(self.credentials(&key, password).await?),
            key: key.clone(),
            name: request.name,
            pool: request.pool,
            address: address(&request.address, "address")?,
            max_sessions: request.max_sessions,
            enabled: !request.disabled,
            comment: request.comment,
        };
        self.change(caller, "add user", Action::AddUser(command)).await?;
        let state = self.core.node.shared().read();
        Ok(v1::AddUserResponse { user: state.users.get(&key).map(|row| user(&state, &key, row)) })
    }

    pub(super) async fn do_list_users(
        &self,
        _caller: &Caller,
        request: v1::ListUsersRequest,
    ) -> Result<v1::ListUsersResponse, Status> {
        let wanted = request.name_contains.to_lowercase();
        let (users, next) = search(&self.core, (request.page_token, request.page_size), move |state, after, put| {
            let mut rows = state.users.range((Bound::Excluded(after.clone()), Bound::Unbounded));
            rows.try_for_each(|(key, row)| put(key, key.contains(&wanted).then(|| user(state, key, row))))
        })
        .await?;
        Ok(v1::ListUsersResponse { users, next_page_token: next.unwrap_or_default() })
    }

    pub(super) async fn do_remove_user(
        &self,
        caller: &Caller,
        request: v1::RemoveUserRequest,
    ) -> Result<v1::RemoveUserResponse, Status> {
        let command = Action::RemoveUser(RemoveUser { key: key_of(&request.name) });
        let done = self.change(caller, "remove user", command).await?;
        Ok(v1::RemoveUserResponse { ended_sessions: done.ended_sessions })
    }

    pub(super) async fn do_set_password(
        &self,
        caller: &Caller,
        request: v1::SetPasswordRequest,
    ) -> Result<v1::SetPasswordResponse, Status> {
        let key = key_of(&request.name);
        let credentials = self.credentials(&key, password(request.password)?).await?;
        let command = SetPassword { key, credentials: Some(credentials) };
        self.change(caller, "set password", Action::SetPassword(command)).await?;
        Ok(v1::SetPasswordResponse {})
    }

    pub(super) async fn do_set_user_enabled(
        &self,
        caller: &Caller,
        request: v1::SetUserEnabledRequest,
    ) -> Result<v1::SetUserEnabledResponse, Status> {
        let command = SetUserEnabled { key: key_of(&request.name), enabled: request.enabled };
        let done = self.change(caller, "enable or disable user", Action::SetUserEnabled(command)).await?;
        Ok(v1::SetUserEnabledResponse { ended_sessions: done.ended_sessions })
    }

    pub(super) async fn do_update_user(
        &self,
        caller: &Caller,
        request: v1::UpdateUserRequest,
    ) -> Result<v1::UpdateUserResponse, Status> {
        check_comment(request.comment.as_deref().unwrap_or_default())?;
        let command = UpdateUser {
            key: key_of(&request.name),
            pool: request.pool,
            address: request.address.map(|text| address(&text, "address")).transpose()?,
            max_sessions: request.max_sessions,
            comment: request.comment,
        };
        let key = command.key.clone();
        if command == (UpdateUser { key: key.clone(), ..UpdateUser::default() }) {
            return Err(Status::invalid_argument(
                "nothing to change: pool, address, max_sessions and comment are not there",
            ));
        }
        self.change(caller, "change user", Action::UpdateUser(command)).await?;
        let state = self.core.node.shared().read();
        Ok(v1::UpdateUserResponse { user: state.users.get(&key).map(|row| user(&state, &key, row)) })
    }

    pub(super) async fn do_unlock_user(
        &self,
        caller: &Caller,
        request: v1::UnlockUserRequest,
    ) -> Result<v1::UnlockUserResponse, Status> {
        let command = Action::UnlockUser(UnlockUser { key: key_of(&request.name) });
        let done = self.change(caller, "unlock user", command).await?;
        Ok(v1::UnlockUserResponse { forgotten: done.forgotten })
    }

    pub(super) async fn do_add_pool(
        &self,
        caller: &Caller,
        request: v1::AddPoolRequest,
    ) -> Result<v1::AddPoolResponse, Status> {
        let name = request.name;
        let fits = (1..=MAX_POOL_NAME).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !fits {
            return Err(Status::invalid_argument("name: 1 to 64 letters, digits, `-`, `_`, `.`"));
        }
        let nets = networks(&request.networks, "networks", MAX_NETWORKS)?;
        let first = nets.first().ok_or_else(|| Status::invalid_argument("networks: at least one"))?;
        if let Some(net) = nets.iter().find(|n| n.prefix < 8) {
            return Err(Status::invalid_argument(format!("networks: {net} is larger than a /8")));
        }
        let router = match address(&request.router, "router")? {
            0 => first.host_bounds().0,
            given => given,
        };
        let command = AddPool {
            name: name.clone(),
            networks: nets,
            router,
            dns: addresses(&request.dns, "dns", 8)?,
            nbns: addresses(&request.nbns, "nbns", 8)?,
            excluded: networks(&request.excluded, "excluded", MAX_NETWORKS)?,
        };
        self.change(caller, "add pool", Action::AddPool(command)).await?;
        let state = self.core.node.shared().read();
        Ok(v1::AddPoolResponse { pool: state.pools.get(&name).map(|row| pool_info(&state, &name, row)) })
    }

    pub(super) async fn do_list_pools(
        &self,
        _caller: &Caller,
        request: v1::ListPoolsRequest,
    ) -> Result<v1::ListPoolsResponse, Status> {
        let state = self.core.node.shared().read();
        let rows = state.pools.range((Bound::Excluded(request.page_token), Bound::Unbounded));
        let (rows, next_page_token) = page(rows, request.page_size, |(name, _)| (*name).clone());
        let pools = rows.into_iter().map(|(name, row)| pool_info(&state, name, row)).collect();
        Ok(v1::ListPoolsResponse { pools, next_page_token })
    }

    pub(super) async fn do_remove_pool(
        &self,
        caller: &Caller,
        request: v1::RemovePoolRequest,
    ) -> Result<v1::RemovePoolResponse, Status> {
        let command = RemovePool { name: request.name, force: request.force };
        let done = self.change(caller, "remove pool", Action::RemovePool(command)).await?;
        Ok(v1::RemovePoolResponse { ended_sessions: done.ended_sessions })
    }
}
