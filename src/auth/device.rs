//! Signing in on another device ("OAuth 2.0 device authorization grant flow", Microsoft identity platform; RFC 8628).

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use oauth2::StandardDeviceAuthorizationResponse;

use super::{
    Audience,
    credential::Material,
    endpoint::{Reply, Verdict},
    entra::{self, Refusal},
    hand_over::Flow,
    outcome::SignInOutcome,
};
use crate::{Error, ErrorKind, Result, Secret};

/// A code that a person types on a page of the sign-in service.
#[derive(Clone)]
#[non_exhaustive]
pub struct DeviceCode {
    /// The account that it is for.
    pub account: String,
    /// The code to type.
    pub user_code: String,
    /// The page to type it on.
    pub verification_uri: String,
    /// Until when.
    pub expires: Timestamp,
    device_code: Secret,
    interval: Duration,
}

impl fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCode")
            .field("account", &self.account)
            .field("verification_uri", &self.verification_uri)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// How much slower to ask when told to (RFC 8628, section 3.5).
const SLOWER: Duration = Duration::from_secs(5);

impl Flow {
    pub(crate) async fn begin_device(&self) -> Result<DeviceCode> {
        self.check().await?;
        if matches!(self.settings.audience, Audience::Other { .. }) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "signing in with a device code is only built for Microsoft's service; sign in with a browser",
            ));
        }
        let url = self.settings.app.authority(&self.settings.places)?.device_code_url();
        let scope = self.token_scope()?;
        let form = [("client_id", self.endpoint.client_id()), ("scope", scope.as_str())];
        let judge = |reply: &Reply| match code(reply) {
            Err(refusal) if refusal.error.is_retryable() => Verdict::Again(refusal.error),
            _ => Verdict::Final,
        };
        let begun = self.endpoint.context().now();
        let reply = self.endpoint.asker().post(&url, &form, &judge).await?;
        let code = code(&reply).map_err(|refusal| refusal.error.with_account(&self.account))?;
        let lasts = SignedDuration::try_from(code.expires_in()).unwrap_or(SignedDuration::MAX);
        Ok(DeviceCode {
            account: self.account.clone(),
            user_code: code.user_code().secret().clone(),
            verification_uri: code.verification_uri().to_string(),
            expires: begun.saturating_add(lasts).unwrap_or(Timestamp::MAX),
            device_code: Secret::new(code.device_code().secret().clone()),
            interval: code.interval().max(Duration::from_secs(1)),
        })
    }

    /// Asks again and again until the person has signed in, or will not any more.
    pub(crate) async fn await_device(&self, code: &DeviceCode) -> Result<SignInOutcome> {
        let context = self.endpoint.context();
        let mut interval = code.interval;
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", code.device_code.expose()),
        ];
        // A device is a public client, and proves nothing, even where the app could.
        let mut material = Material::Public;
        loop {
            // Never past its end, however long the service wants to be left alone.
            let left = Duration::try_from(code.expires.duration_since(context.now())).unwrap_or_default();
            context.sleep(interval.min(left)).await;
            if context.now() >= code.expires {
                return Ok(SignInOutcome::Expired { account: self.account.clone() });
            }
            let mut answer = self.endpoint.grant(&material, &form, &[&code.device_code]).await;
            if answer.as_ref().is_err_and(|refusal| refusal.error.code() == Some("AADSTS7000218")) {
                material = self.endpoint.material().await?;
                if !matches!(material, Material::Public) {
                    answer = self.endpoint.grant(&material, &form, &[&code.device_code]).await;
                }
            }
            let refusal = match answer {
                Ok(granted) => return self.accept(granted, None).await,
                Err(refusal) => refusal,
            };
            match refusal.oauth.as_str() {
                "authorization_pending" => {}
                "slow_down" => interval = interval.saturating_add(SLOWER),
                "expired_token" => return Ok(SignInOutcome::Expired { account: self.account.clone() }),
                // A fault of the network; asked again more slowly (RFC 8628, section 3.5).
                _ if refusal.error.is_retryable() => interval = interval.saturating_mul(2),
                _ => return self.refused(refusal, &super::hand_over::somewhere(&self.settings)).await,
            }
        }
    }
}

fn code(reply: &Reply) -> Result<StandardDeviceAuthorizationResponse, Refusal> {
    if reply.status == 200
        && let Ok(code) = serde_json::from_slice(&reply.body)
    {
        return Ok(code);
    }
    Err(entra::refusal(reply, &[]))
}
