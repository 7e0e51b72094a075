//! The authorize endpoint: its request to the letter, and the redirect back.
//!
//! From "Microsoft identity platform and OAuth 2.0 authorization code flow" and "Redirect URI (reply URL) outline and
//! limitations".

use super::super::content::guid;
use super::super::reply::Reply;
use super::super::routes::Incoming;
use super::super::state::{App, State};
use super::codes::{Aadsts, aadsts};
use super::jwt::opaque;
use super::people::{Authorization, Code, Errand, Platform, Prompt, ResponseMode};
use super::token::{Form, can_be_challenged};
use super::{grants, pages, scope, steps, tenant_of};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

const PARAMETERS: [&str; 13] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "response_mode",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "prompt",
    "login_hint",
    "domain_hint",
    "claims",
];

pub(super) fn handle(state: &mut State, incoming: &Incoming<'_>, struck: Option<Aadsts>) -> Reply {
    let (path, query) = incoming.target.split_once('?').unwrap_or((incoming.target, ""));
    let tenant = tenant_of(path);
    if !["GET", "POST"].contains(&incoming.method) {
        return pages::failed(&aadsts(90009).saying("Method not allowed."));
    }
    let form = if incoming.method == "POST" { Form::read(incoming) } else { Form::parse(query) };
    let form = match form.and_then(|form| form.only(&PARAMETERS, &[]).map(|()| form)) {
        Ok(form) => form,
        Err(refused) => return pages::failed(&refused),
    };
    // Until the redirect is known to be the application's, nothing goes there.
    let (app, mut authorization) = match addressee(state, &tenant, &form) {
        Ok(known) => known,
        Err(refused) => return pages::failed(&refused),
    };
    let read = match struck {
        Some(refused) => Err(refused),
        None => read(state, &app, &form, &mut authorization),
    };
    if let Err(refused) = read {
        return refuse(state, incoming, &authorization, &refused);
    }
    steps::open(state, incoming, Errand::Code(authorization))
}

/// Who is to be answered, and how.
fn addressee(state: &State, tenant: &str, form: &Form) -> Result<(App, Authorization), Aadsts> {
    let authority = state.authority(tenant)?;
    let client_id = form.required("client_id")?;
    let app = state.app_for(client_id, &authority, tenant)?;
    if app.redirects.is_empty() {
        return Err(aadsts(900971));
    }
    let redirect = form.required("redirect_uri")?;
    let platform = registered(&app, redirect)?;
    let mode = match form.get("response_mode") {
        None | Some("query") => ResponseMode::Query,
        Some("fragment") => ResponseMode::Fragment,
        Some("form_post") => ResponseMode::FormPost,
        Some(other) => {
            return Err(aadsts(9002313).saying(format!("Invalid request: response_mode '{other}' is not supported.")));
        }
    };
    let authorization = Authorization {
        client_id: app.client_id.clone(),
        authority,
        redirect: redirect.to_owned(),
        platform,
        mode,
        scopes: scope::Scopes::default(),
        state: form.get("state").map(str::to_owned),
        nonce: form.get("nonce").map(str::to_owned),
        challenge: None,
        prompt: None,
        hint: form.get("login_hint").map(str::to_owned),
        can_be_challenged: false,
    };
    Ok((app, authorization))
}

/// The platform of a redirect URI: equal to the letter, but the port of `http://localhost` does not count.
pub(super) fn registered(app: &App, redirect: &str) -> Result<Platform, Aadsts> {
    let sent = without_port(redirect);
    let found =
        app.redirects.iter().find(|(known, _)| *known == redirect || (sent.is_some() && without_port(known) == sent));
    found.map(|(_, platform)| *platform).ok_or_else(|| {
        aadsts(50011).saying(format!(
            "The redirect URI '{redirect}' specified in the request does not match the redirect URIs configured for the application '{}'. Make sure the redirect URI sent in the request matches one added to your application in the Azure portal.",
            app.client_id
        ))
    })
}

/// What follows host and port of a `http://localhost` address.
fn without_port(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix("http://localhost")?;
    let Some(port) = rest.strip_prefix(':') else {
        return (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest);
    };
    let end = port.find(|c: char| !c.is_ascii_digit()).unwrap_or(port.len());
    let after = &port[end..];
    (end > 0 && (after.is_empty() || after.starts_with(['/', '?']))).then_some(after)
}

/// The rest of the request.
fn read(state: &State, app: &App, form: &Form, authorization: &mut Authorization) -> Result<(), Aadsts> {
    let invalid = |message: &str| aadsts(9002313).saying(format!("Invalid request: {message}"));
    authorization.prompt = match form.get("prompt") {
        None => None,
        Some("select_account") => Some(Prompt::SelectAccount),
        Some("login") => Some(Prompt::Login),
        Some("consent") => Some(Prompt::Consent),
        Some("none") => Some(Prompt::None),
        Some(_) => return Err(invalid("the value of 'prompt' is not supported.")),
    };
    if state.settings.sign_in.demand_account_choice && authorization.prompt != Some(Prompt::SelectAccount) {
        return Err(invalid("this tenant's test demands prompt=select_account."));
    }
    let response_type = form.required("response_type")?;
    if response_type != "code" {
        let error = "unsupported_response_type";
        return Err(Aadsts::other(400, error, 700054, &format!("response_type '{response_type}' is not enabled.")));
    }
    let scopes = scope::parse(form.required("scope")?)?;
    grants::check_scopes(app, &scopes)?;
    match (form.get("code_challenge"), form.get("code_challenge_method")) {
        (None, None) if authorization.platform == Platform::Spa => return Err(aadsts(9002325)),
        (None, None) if state.settings.sign_in.demand_pkce => {
            return Err(invalid("'code_challenge' is missing."));
        }
        (None, None) => {}
        (Some(challenge), Some("S256")) => {
            let sound = challenge.len() == 43
                && challenge.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            if !sound {
                return Err(invalid("'code_challenge' is no base64url of a SHA-256."));
            }
            authorization.challenge = Some(challenge.to_owned());
        }
        _ => return Err(invalid("'code_challenge' goes with 'code_challenge_method' S256.")),
    }
    authorization.can_be_challenged = can_be_challenged(form)?;
    authorization.scopes = scopes;
    Ok(())
}

/// Back to the application with a code.
pub(super) fn accept(state: &mut State, authorization: &Authorization, user: u32) -> Reply {
    let code = opaque(state, "1.Acode.");
    let session = guid(state.number());
    let born = state.now_seconds();
    let back = Authorization::clone(authorization);
    state.people.codes.insert(code.clone(), Code { authorization: back, user, born, used: false });
    let mut parameters = vec![("code", code)];
    parameters.extend(authorization.state.clone().map(|value| ("state", value)));
    parameters.push(("session_state", session));
    answer(authorization, &parameters)
}

/// Back to the application with an error.
pub(super) fn refuse(
    state: &mut State,
    incoming: &Incoming<'_>,
    authorization: &Authorization,
    refused: &Aadsts,
) -> Reply {
    let mut parameters = refusal(state, incoming, refused);
    parameters.extend(authorization.state.clone().map(|value| ("state", value)));
    answer(authorization, &parameters)
}

/// What a redirect says about a refusal.
pub(super) fn refusal(state: &mut State, incoming: &Incoming<'_>, refused: &Aadsts) -> Vec<(&'static str, String)> {
    let error = match refused.code {
        90094 | 90095 => state.settings.sign_in.admin_consent_error.clone(),
        _ => refused.redirected.clone(),
    };
    let mut parameters = vec![("error", error), ("error_description", refused.description(state, incoming).text)];
    if refused.code == 65004 {
        parameters.push(("error_subcode", "cancel".into()));
    }
    if refused.code != 0 {
        parameters.push(("error_uri", format!("{}/error?code={}", state.login_root, refused.code)));
    }
    parameters
}

fn answer(authorization: &Authorization, parameters: &[(&'static str, String)]) -> Reply {
    match authorization.mode {
        ResponseMode::FormPost => pages::form_post(&authorization.redirect, parameters),
        ResponseMode::Query => go_back(&authorization.redirect, '?', parameters),
        ResponseMode::Fragment => go_back(&authorization.redirect, '#', parameters),
    }
}

/// A redirect; an address without a path gets one.
pub(super) fn go_back(redirect: &str, mark: char, parameters: &[(&'static str, String)]) -> Reply {
    let mut location = redirect.to_owned();
    let after_scheme = location.find("://").map_or(0, |at| at + 3);
    if !location[after_scheme..].contains(['/', '?']) {
        location.push('/');
    }
    location.push(if mark == '?' && location.contains('?') { '&' } else { mark });
    location.push_str(&encoded(parameters));
    Reply::empty(302).with_header("Location", location).with_header("Cache-Control", "no-store, no-cache")
}

pub(super) fn encoded(parameters: &[(&'static str, String)]) -> String {
    let pieces: Vec<String> = parameters
        .iter()
        .map(|(name, value)| {
            format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC).to_string().replace("%20", "+"))
        })
        .collect();
    pieces.join("&")
}
