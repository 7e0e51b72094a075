//! The HTTP client: whom it trusts, and which way it goes.

use reqwest::{Certificate, Client, Proxy, redirect};

use super::Route;
use crate::{Error, ErrorKind, Patience, Result};

/// Makes the client. Reads the CA file and the proxy's URL, so that a missing one is the error of the account that
/// needs it.
pub(super) fn client(route: &Route, patience: Patience) -> Result<Client> {
    let mut builder = Client::builder()
        .user_agent(concat!("mail-account/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(patience.connect)
        // A bearer token or a secret must not follow a redirect, and none of the services sends one. A 3xx is an error.
        .redirect(redirect::Policy::none())
        // reqwest repeats some requests on its own; here only `retry.rs` decides that.
        .retry(reqwest::retry::never())
        // More than a mailbox's four connections are only kept for a moment.
        .pool_max_idle_per_host(8)
        .tcp_keepalive(std::time::Duration::from_secs(30));
    if let Some(file) = &route.ca_file {
        let failed = |what: &str| {
            Error::new(ErrorKind::InvalidConfig, format!("`{}`: the file `{}` {what}", route.ca_place, file.display()))
        };
        let pem = std::fs::read(file).map_err(|e| failed("cannot be read").with_source(e))?;
        let roots = Certificate::from_pem_bundle(&pem).map_err(|e| failed("is not PEM").with_source(e))?;
        if roots.is_empty() {
            return Err(failed("holds no certificate; it must hold PEM blocks that begin with `BEGIN CERTIFICATE`"));
        }
        builder = builder.tls_certs_merge(roots);
    }
    if let Some(proxy) = &route.proxy {
        let url = proxy.source.read(&route.proxy_place)?;
        // The parser's own error may repeat the URL, and with it a password.
        let proxy = Proxy::all(url.expose()).map_err(|_| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("`{}` is not the URL of a proxy; write `http://proxy.contoso.nl:8080`", route.proxy_place),
            )
        })?;
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|e| Error::new(ErrorKind::InvalidConfig, "the HTTP client cannot be made").with_source(e))
}
