//! Pools and the choice of addresses.

use std::net::Ipv4Addr;

use sallyport_proto::v1;

use super::net::{Net, Ranges};
use super::{AddPool, ConflictKind, MAX_POOL_SIZE, MAX_POOLS, PoolRow, RemovePool, Reply, State, UserRow};

impl PoolRow {
    /// The addresses it may lease.
    pub(super) fn ranges(&self) -> Ranges {
        let mut excluded = self.excluded.clone();
        excluded.push(Net { address: self.router, prefix: 32 });
        Ranges::new(&self.networks, &excluded)
    }
}

/// Why a user gets no address.
pub(super) struct NoAddress {
    pub(super) cause: String,
    pub(super) remedy: String,
}

impl State {
    pub(super) fn add_pool(&mut self, command: &AddPool) -> Reply {
        if command.name.is_empty() || command.networks.is_empty() {
            return Reply::conflict(ConflictKind::Invalid, "a pool needs a name and at least one network");
        }
        if self.pools.contains(&command.name) {
            return Reply::conflict(ConflictKind::AlreadyExists, format!("there is a pool {:?} already", command.name));
        }
        if self.pools.len() >= MAX_POOLS {
            return Reply::conflict(
                ConflictKind::Exhausted,
                format!("there are {MAX_POOLS} pools, the most there can be"),
            );
        }
        if let Err(message) = self.check_networks(command) {
            return Reply::conflict(ConflictKind::Precondition, message);
        }
        let row = PoolRow {
            networks: command.networks.clone(),
            router: command.router,
            dns: command.dns.clone(),
            nbns: command.nbns.clone(),
            excluded: command.excluded.clone(),
            cursor: 0,
        };
        let ranges = row.ranges();
        match ranges.size() {
            0 => return Reply::conflict(ConflictKind::Precondition, "nothing is left to lease in these networks"),
            size if size > MAX_POOL_SIZE => {
                let message = format!("{size} addresses in one pool; a pool holds a /8 at most");
                return Reply::conflict(ConflictKind::Precondition, message);
            }
            _ => {}
        }
        // Sessions of an earlier pool of this name, or with these addresses, may still be about.
        let used = self.index.leases.keys().filter(|a| ranges.contains(**a)).count();
        self.index.used.insert(command.name.clone(), used as u64);
        self.index.ranges.insert(command.name.clone(), ranges);
        self.pools.insert(command.name.clone(), row);
        self.change_policy();
        Reply::done()
    }

    fn check_networks(&self, command: &AddPool) -> Result<(), String> {
        for (i, net) in command.networks.iter().enumerate() {
            if net.prefix > 32 || net.bounds().0 != net.address {
                return Err(format!("{net} is not a network"));
            }
            if command.networks.iter().skip(i + 1).any(|other| other.overlaps(*net)) {
                return Err(format!("{net} overlaps another network of the same pool"));
            }
            for (name, pool) in self.pools.iter() {
                if let Some(other) = pool.networks.iter().find(|other| other.overlaps(*net)) {
                    return Err(format!("{net} overlaps {other} of pool {name:?}; choose another network"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn remove_pool(&mut self, command: &RemovePool) -> Reply {
        if !self.pools.contains(&command.name) {
            return Reply::conflict(ConflictKind::NotFound, format!("there is no pool {:?}", command.name));
        }
        let users =
            |state: &Self| state.users.iter().find(|(_, u)| u.pool == command.name).map(|(_, u)| u.name.clone());
        if let Some(user) = users(self) {
            let message =
                format!("user {user:?} takes addresses from pool {:?}; remove or change that user first", command.name);
            return Reply::conflict(ConflictKind::Precondition, message);
        }
        let ids: Vec<u64> = self.sessions.iter().filter(|(_, s)| s.pool == command.name).map(|(id, _)| *id).collect();
        if !ids.is_empty() && !command.force {
            let message = format!(
                "{} sessions have addresses from pool {:?}; wait until they end, or force it",
                ids.len(),
                command.name
            );
            return Reply::conflict(ConflictKind::Precondition, message);
        }
        self.pools.remove(&command.name);
        self.index.ranges.remove(&command.name);
        self.index.used.remove(&command.name);
        let ended = self.doom(ids, v1::EndReason::Killed, "the address pool was removed");
        self.change_policy();
        Reply::ended(ended)
    }

    /// The pool that may lease `address`.
    pub(super) fn pool_of(&self, address: u32) -> Option<&String> {
        self.index.ranges.iter().find(|(_, ranges)| ranges.contains(address)).map(|(name, _)| name)
    }

    /// Addresses a pool can lease, and how many of them are leased.
    pub fn pool_use(&self, name: &str) -> (u64, u64) {
        let size = self.index.ranges.get(name).map_or(0, Ranges::size);
        (size, self.index.used.get(name).copied().unwrap_or(0))
    }

    /// Chooses an address for a user: the fixed one, else the last one if it is free, else one that rested long.
    pub(super) fn choose_address(&mut self, key: &str, user: &UserRow) -> Result<(u32, String), NoAddress> {
        if user.address != 0 {
            return self.fixed_address(user);
        }
        let names: Vec<String> = if user.pool.is_empty() {
            self.pools.iter().map(|(name, _)| name.clone()).collect()
        } else {
            vec![user.pool.clone()]
        };
        let last = user.last_address;
        if last != 0
            && self.is_free(last, key)
            && let Some(pool) = self.pool_of(last).filter(|pool| names.contains(pool))
        {
            return Ok((last, pool.clone()));
        }
        for name in &names {
            if let Some(address) = self.free_address(name, key) {
                if let Some(pool) = self.pools.change(name) {
                    pool.cursor = address;
                }
                return Ok((address, name.clone()));
            }
        }
        Err(match names.as_slice() {
            [] => NoAddress {
                cause: "there is no address pool".into(),
                remedy: "add one: sallyport pool add NAME --network NETWORK".into(),
            },
            names => NoAddress {
                cause: format!("no address is free in pool {}", names.join(", ")),
                remedy: "add a larger pool, or end sessions that nobody uses".into(),
            },
        })
    }

    fn fixed_address(&self, user: &UserRow) -> Result<(u32, String), NoAddress> {
        let address = Ipv4Addr::from(user.address);
        if let Some(id) = self.index.leases.get(&user.address) {
            let holder = self.sessions.get(id).map_or("", |s| s.user.as_str());
            return Err(NoAddress {
                cause: format!("the user's fixed address {address} is in use by session {id:016x} of {holder:?}"),
                remedy: "wait until that session ends, or kill it".into(),
            });
        }
        match self.pool_of(user.address) {
            Some(pool) => Ok((user.address, pool.clone())),
            None => Err(NoAddress {
                cause: format!("the user's fixed address {address} is in no pool"),
                remedy: "add a pool that holds it, or give the user another address".into(),
            }),
        }
    }

    /// Not leased, and not fixed to somebody else.
    fn is_free(&self, address: u32, key: &str) -> bool {
        !self.index.leases.contains_key(&address) && self.index.fixed.get(&address).is_none_or(|owner| owner == key)
    }

    fn free_address(&self, pool: &str, key: &str) -> Option<u32> {
        let ranges = self.index.ranges.get(pool)?;
        let used = self.index.used.get(pool).copied().unwrap_or(0);
        // What nobody may take, counted first: the search below must not walk a full pool.
        let fixed = ranges
            .iter()
            .flat_map(|(first, last)| self.index.fixed.range(first..=last))
            .filter(|(address, _)| !self.index.leases.contains_key(address))
            .count() as u64;
        if used + fixed >= ranges.size() {
            return None;
        }
        let cursor = self.pools.get(&pool.to_owned())?.cursor;
        ranges.from_after(cursor).find(|address| self.is_free(*address, key))
    }
}
