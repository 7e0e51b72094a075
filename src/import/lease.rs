//! A lease that is kept alive as long as the run goes on.

use std::{sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    Context, ErrorKind, Result,
    store::{Lease, Ledger, Scope},
};

/// How long a lease lasts without renewal: what other machines wait for after this one has died.
const TTL: Duration = Duration::from_secs(120);
/// A third of it, so that two renewals may fail.
const RENEWAL: Duration = Duration::from_secs(40);

/// A lease in use. Dropping it gives it back in the background; [`release`](Self::release) waits for that.
#[derive(Debug)]
pub(super) struct Held {
    lease: Lease,
    ledger: Option<Arc<dyn Ledger>>,
    lost: CancellationToken,
    _renewal: AbortOnDropHandle<()>,
}

impl Held {
    /// Takes the lease of a scope; `None` when another run holds it.
    pub(super) async fn acquire(ledger: &Arc<dyn Ledger>, scope: &Scope, context: &Context) -> Result<Option<Self>> {
        let Some(lease) = ledger.acquire(scope, TTL).await? else { return Ok(None) };
        let lost = CancellationToken::new();
        let renewal = tokio::spawn(renew(Arc::clone(ledger), lease.clone(), context.clone(), lost.clone()));
        Ok(Some(Self { lease, ledger: Some(Arc::clone(ledger)), lost, _renewal: AbortOnDropHandle::new(renewal) }))
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Cancelled when somebody else has taken the lease over.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    pub(super) async fn release(mut self) -> Result<()> {
        match self.ledger.take() {
            Some(ledger) => ledger.release(&self.lease).await,
            None => Ok(()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let lease = self.lease.clone();
            runtime.spawn(async move {
                // Nothing is lost if this fails: the lease expires.
                let _ = ledger.release(&lease).await;
            });
        }
    }
}

async fn renew(ledger: Arc<dyn Ledger>, lease: Lease, context: Context, lost: CancellationToken) {
    loop {
        context.sleep(RENEWAL).await;
        match ledger.renew(&lease, TTL).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                lost.cancel();
                return;
            }
            // The database may be back before the lease expires; if not, the next commit is refused.
            Err(error) => tracing::warn!(scope = %lease.scope, "cannot renew the lease: {}", error.chain()),
            Ok(()) => {}
        }
    }
}
