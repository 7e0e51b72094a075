//! The AADSTS codes: how each is answered, and the error body.
//!
//! From "Microsoft Entra authentication & authorization error codes". Microsoft does not say which `error` goes with
//! which code; where the list is silent, the column holds what clients have seen.

use super::super::content::guid;
use super::super::reply::Reply;
use super::super::routes::Incoming;
use super::super::state::State;
use serde_json::json;

/// One code: status and `error` at the token endpoint, `suberror`, `error` of a redirect, text.
struct Row(u32, u16, &'static str, Option<&'static str>, &'static str, &'static str);

#[rustfmt::skip] // One line a code, so that the columns can be read.
const ROWS: &[Row] = &[
    // The application and its credential.
    Row(7000215, 401, "invalid_client", None, "", "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID."),
    Row(7000222, 401, "invalid_client", None, "", "The provided client secret keys are expired."),
    Row(7000218, 401, "invalid_client", None, "", "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."),
    Row(700025, 401, "invalid_client", None, "", "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."),
    Row(7000112, 400, "unauthorized_client", None, "unauthorized_client", "Application is disabled."),
    Row(700016, 400, "unauthorized_client", None, "unauthorized_client", "Application was not found in the directory."),
    Row(700027, 401, "invalid_client", None, "", "Client assertion failed signature validation."),
    Row(700024, 401, "invalid_client", None, "", "Client assertion is not within its valid time range."),
    Row(50012, 401, "invalid_client", None, "", "Authentication failed: the client assertion is not acceptable."),
    Row(50027, 401, "invalid_client", None, "", "JWT token is invalid or malformed."),
    Row(70021, 401, "invalid_client", None, "", "No matching federated identity record found for presented assertion."),
    Row(700213, 401, "invalid_client", None, "", "No matching federated identity record found for presented assertion subject."),
    // The tenant.
    Row(90002, 400, "invalid_request", None, "invalid_request", "Tenant not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."),
    Row(900023, 400, "invalid_request", None, "invalid_request", "Specified tenant identifier is neither a valid DNS name, nor a valid external domain."),
    Row(90038, 400, "invalid_request", None, "invalid_request", "The tenant is part of another national cloud."),
    Row(50194, 400, "invalid_request", None, "invalid_request", "Application is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such apps."),
    Row(9001023, 400, "invalid_request", None, "invalid_request", "The grant type is not supported over the /common or /consumers endpoints. Please use the /organizations or tenant-specific endpoint."),
    Row(90130, 400, "invalid_request", None, "invalid_request", "Application is not supported over the /common or /consumers endpoints."),
    Row(90124, 400, "invalid_request", None, "invalid_request", "Resource is not supported over the /common or /consumers endpoints."),
    Row(900382, 400, "invalid_client", None, "invalid_request", "Confidential Client is not supported in Cross Cloud request."),
    Row(900432, 400, "invalid_client", None, "invalid_request", "Confidential Client is not supported in Cross Cloud request."),
    // The redirect, the code, the refresh token.
    Row(50011, 400, "invalid_request", None, "invalid_request", "The redirect URI specified in the request does not match the redirect URIs configured for the application."),
    Row(900971, 400, "invalid_request", None, "invalid_request", "No reply address provided."),
    Row(9002325, 400, "invalid_request", None, "invalid_request", "Proof Key for Code Exchange is required for cross-origin authorization code redemption."),
    Row(9002327, 400, "invalid_request", None, "invalid_request", "Tokens issued for the 'Single-Page Application' client-type may only be redeemed via cross-origin requests."),
    Row(501481, 400, "invalid_grant", None, "", "The Code_Verifier does not match the code_challenge supplied in the authorization request."),
    Row(54005, 400, "invalid_grant", None, "", "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token."),
    Row(70000, 400, "invalid_grant", None, "", "The provided grant is invalid or malformed."),
    Row(70008, 400, "invalid_grant", None, "", "The provided authorization code or refresh token has expired due to inactivity or was revoked."),
    Row(700082, 400, "invalid_grant", None, "", "The refresh token has expired due to inactivity. The token was inactive for 90.00:00:00."),
    Row(700084, 400, "invalid_grant", None, "", "The refresh token was issued to a single page app (SPA), and therefore has a fixed, limited lifetime of 1.00:00:00."),
    Row(70043, 400, "invalid_grant", Some("bad_token"), "interaction_required", "The refresh token has expired or is invalid due to sign-in frequency checks by conditional access."),
    Row(50173, 400, "invalid_grant", None, "", "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password."),
    Row(50132, 400, "invalid_grant", None, "login_required", "The session is not valid due to a password change or expiry."),
    Row(50133, 400, "invalid_grant", None, "login_required", "The session is not valid due to password expiration or recent password change."),
    Row(50089, 400, "invalid_grant", None, "invalid_request", "The flow token has expired."),
    // The person and what policy asks of them.
    Row(50076, 400, "invalid_grant", Some("basic_action"), "interaction_required", "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication."),
    Row(50079, 400, "invalid_grant", Some("basic_action"), "interaction_required", "Due to a configuration change made by your administrator, you must enroll in multi-factor authentication."),
    Row(50072, 400, "invalid_grant", Some("basic_action"), "interaction_required", "You must enroll in multi-factor authentication to access this resource."),
    Row(50074, 400, "invalid_grant", Some("basic_action"), "interaction_required", "Strong Authentication is required."),
    Row(50158, 400, "interaction_required", None, "interaction_required", "External security challenge not satisfied."),
    Row(53000, 400, "invalid_grant", Some("message_only"), "access_denied", "Device is not in required device state: compliant."),
    Row(53001, 400, "invalid_grant", Some("message_only"), "access_denied", "Device is not in required device state: domain joined."),
    Row(53003, 400, "invalid_grant", Some("message_only"), "access_denied", "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."),
    Row(530032, 400, "invalid_grant", Some("message_only"), "access_denied", "Blocked by the tenant's security policy."),
    Row(530035, 400, "invalid_grant", Some("message_only"), "access_denied", "Access has been blocked by security defaults."),
    Row(50105, 400, "invalid_grant", None, "access_denied", "Your administrator has configured the application to block users unless they are specifically granted ('assigned') access to the application."),
    Row(50034, 400, "invalid_grant", None, "access_denied", "The user account does not exist in the directory. To sign into this application, the account must be added to the directory."),
    Row(50020, 400, "invalid_grant", None, "access_denied", "User account from identity provider does not exist in tenant and cannot access the application in that tenant."),
    Row(16000, 400, "interaction_required", None, "interaction_required", "Either multiple user identities are available for the current request or selected account is not supported for the scenario."),
    Row(50126, 400, "invalid_grant", None, "access_denied", "Error validating credentials due to invalid username or password."),
    Row(50053, 400, "invalid_grant", None, "access_denied", "The account is locked, you've tried to sign in too many times with an incorrect user ID or password."),
    Row(50055, 400, "invalid_grant", Some("user_password_expired"), "access_denied", "The password is expired."),
    Row(50057, 400, "invalid_grant", None, "access_denied", "The user account is disabled."),
    Row(50058, 400, "login_required", None, "login_required", "A silent sign-in request was sent but no user is signed in."),
    // Consent.
    Row(65001, 400, "invalid_grant", Some("consent_required"), "consent_required", "The user or administrator has not consented to use the application. Send an interactive authorization request for this user and resource."),
    Row(65004, 400, "invalid_grant", None, "access_denied", "User declined to consent to access the app."),
    Row(90094, 400, "invalid_grant", Some("consent_required"), "access_denied", "An administrator must grant the permissions that the application asks for."),
    Row(90095, 400, "invalid_grant", Some("consent_required"), "access_denied", "Admin consent is required for the permissions requested by this application; a request was sent."),
    // Resource and scope.
    Row(650057, 400, "invalid_resource", None, "invalid_resource", "Invalid resource. The client has requested access to a resource which is not listed in the requested permissions in the client's application registration."),
    Row(650056, 400, "invalid_request", None, "invalid_request", "Misconfigured application. The client has not listed any permissions for the resource, or consent was not granted."),
    Row(65005, 400, "invalid_resource", None, "invalid_resource", "The application required resource access list does not contain applications discoverable by the resource."),
    Row(650052, 400, "unauthorized_client", None, "unauthorized_client", "The app needs access to a service that your organization has not subscribed to or enabled."),
    Row(500011, 400, "invalid_resource", None, "invalid_resource", "The resource principal was not found in the tenant."),
    Row(70011, 400, "invalid_scope", None, "invalid_scope", "The provided value for the input parameter 'scope' is not valid."),
    Row(1002012, 400, "invalid_scope", None, "invalid_scope", "The provided value for scope is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."),
    Row(28000, 400, "invalid_request", None, "invalid_request", "Provided value for the input parameter scope is not valid because it contains more than one resource."),
    Row(700022, 400, "invalid_request", None, "invalid_request", "The provided value for the input parameter scope is not valid because it contains more than one resource."),
    // The request.
    Row(9002313, 400, "invalid_request", None, "invalid_request", "Invalid request. Request is malformed or invalid."),
    Row(900144, 400, "invalid_request", None, "invalid_request", "The request body must contain a parameter that is missing."),
    Row(90014, 400, "invalid_request", None, "invalid_request", "A required field is missing from the request."),
    Row(900561, 400, "invalid_request", None, "invalid_request", "The endpoint only accepts POST requests."),
    Row(90009, 404, "invalid_request", None, "invalid_request", "Not found."),
    Row(70003, 400, "unsupported_grant_type", None, "", "The app requested an unsupported grant type."),
    // Device code.
    Row(70016, 400, "authorization_pending", None, "", "OAuth 2.0 device flow error. Authorization is pending. Continue polling."),
    Row(70018, 400, "bad_verification_code", None, "", "Invalid verification code."),
    Row(70019, 400, "expired_token", None, "", "Verification code expired. Have the user retry the sign-in."),
    Row(70020, 400, "expired_token", None, "", "The provided value for the device code is expired."),
    // Load.
    Row(50196, 400, "temporarily_unavailable", None, "temporarily_unavailable", "The server terminated an operation because it encountered a client request loop."),
    Row(90033, 503, "temporarily_unavailable", None, "temporarily_unavailable", "A transient error has occurred. Please try again."),
    Row(90055, 429, "temporarily_unavailable", None, "temporarily_unavailable", "Tenant throttling: too many requests."),
    Row(90006, 503, "server_error", None, "server_error", "External server retryable error."),
    Row(90012, 503, "server_error", None, "server_error", "Request timed out."),
    Row(90024, 503, "server_error", None, "server_error", "Request budget exceeded."),
    Row(50033, 503, "server_error", None, "server_error", "A transient error has occurred. Please try again."),
];

/// A refusal of the login site.
#[derive(Clone, Debug)]
pub(crate) struct Aadsts {
    pub(crate) status: u16,
    pub(crate) error: String,
    pub(crate) suberror: Option<&'static str>,
    /// `error` where it goes back by redirect.
    pub(crate) redirected: String,
    /// 0: an error of OAuth without a code of Entra.
    pub(crate) code: u32,
    pub(crate) message: String,
}

/// The refusal with this code and its usual text.
pub(crate) fn aadsts(code: u32) -> Aadsts {
    match ROWS.iter().find(|row| row.0 == code) {
        Some(Row(_, status, error, suberror, redirected, message)) => Aadsts {
            status: *status,
            error: (*error).to_owned(),
            suberror: *suberror,
            redirected: if redirected.is_empty() { *error } else { *redirected }.to_owned(),
            code,
            message: (*message).to_owned(),
        },
        None => Aadsts::other(400, "invalid_grant", code, "Error."),
    }
}

impl Aadsts {
    /// A refusal that stands in no table.
    pub(crate) fn other(status: u16, error: &str, code: u32, message: &str) -> Self {
        let error = error.to_owned();
        Aadsts { status, redirected: error.clone(), error, suberror: None, code, message: message.to_owned() }
    }

    /// With this text.
    pub(crate) fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// What stands in `error_description`.
    pub(crate) fn description(&self, state: &mut State, incoming: &Incoming<'_>) -> Described {
        let trace = guid(state.number());
        let correlation = incoming.header("client-request-id").map_or_else(|| guid(state.number()), str::to_owned);
        let stamp = jiff::Timestamp::from_second(state.now_seconds())
            .map(|time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
            .unwrap_or_default();
        let text = match self.code {
            0 => self.message.clone(),
            code => format!(
                "AADSTS{code}: {}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {stamp}",
                self.message
            ),
        };
        Described { text, trace, correlation, stamp }
    }

    /// The body of the token endpoint ("Handling error codes in your application").
    pub(crate) fn reply(&self, state: &mut State, incoming: &Incoming<'_>) -> Reply {
        let Described { text, trace, correlation, stamp } = self.description(state, incoming);
        let mut body = json!({
            "error": self.error,
            "error_description": text,
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": correlation,
        });
        if self.code != 0 {
            body["error_codes"] = json!([self.code]);
            body["error_uri"] = format!("{}/error?code={}", state.login_root, self.code).into();
        }
        if let Some(suberror) = self.suberror {
            body["suberror"] = suberror.into();
        }
        Reply::json(self.status, body)
    }
}

pub(crate) struct Described {
    pub(crate) text: String,
    trace: String,
    correlation: String,
    stamp: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_stands_once_with_a_status_that_refuses() {
        let mut seen = HashSet::new();
        for row in ROWS {
            assert!(seen.insert(row.0), "{} stands twice", row.0);
            assert!((400..600).contains(&row.1) && !row.2.is_empty() && !row.5.is_empty(), "{}", row.0);
        }
    }
}
