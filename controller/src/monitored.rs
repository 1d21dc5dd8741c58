//! What `/metrics` and `/healthz` say.

use sallyport_monitor::Monitored;

use crate::app::Core;
use crate::raft::Health;

impl Monitored for Core {
    fn metrics(&self) -> Result<Vec<u8>, String> {
        self.metrics.render(self).map_err(|e| e.to_string())
    }

    fn health(&self) -> Result<(), String> {
        let health = self.node.health().borrow().clone();
        match health {
            Health::Running if self.node.figures().leader != 0 => Ok(()),
            Health::Running => Err("no leader is known".into()),
            // What failed is in the log and the exit message; this address is for anybody.
            Health::Failed { .. } => Err("storage failed".into()),
            Health::Outdated(_) => Err("this software is too old for the cluster".into()),
            Health::Stopped => Err("stopping".into()),
        }
    }
}
