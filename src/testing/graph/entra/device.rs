//! Device codes: `/devicecode` for the application, `/devicelogin` for the person.
//!
//! From "Microsoft identity platform and the OAuth 2.0 device authorization grant flow".

use super::super::reply::Reply;
use super::super::routes::Incoming;
use super::super::state::State;
use super::codes::{Aadsts, aadsts};
use super::jwt::opaque;
use super::people::{DEVICE_LIFE, Device, DeviceState, Errand};
use super::scope::{self, Scopes};
use super::token::{Form, can_be_challenged};
use super::{grants, pages, steps, tenant_of};
use serde_json::json;

pub(super) fn code(state: &mut State, incoming: &Incoming<'_>) -> Result<Reply, Aadsts> {
    let (path, query) = incoming.target.split_once('?').unwrap_or((incoming.target, ""));
    let tenant = tenant_of(path);
    if incoming.method != "POST" {
        return Err(aadsts(900561)
            .saying(format!("The endpoint only accepts POST requests. Received a {} request.", incoming.method)));
    }
    let query = Form::parse(query)?;
    query.only(&["mkt"], &[])?;
    let form = Form::read(incoming)?;
    form.only(&["client_id", "scope", "claims"], &[])?;
    let authority = state.authority(&tenant)?;
    let app = state.app_for(form.required("client_id")?, &authority, &tenant)?;
    let scopes = scope::parse(form.required("scope")?)?;
    grants::check_scopes(&app, &scopes)?;
    let can_be_challenged = can_be_challenged(&form)?;
    // Letters and digits that are not taken for each other.
    let user_code: String = opaque(state, "")
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_uppercase())
        .filter(|c| !"01OI".contains(*c))
        .take(9)
        .collect();
    let device_code = opaque(state, "D.");
    let interval = state.settings.sign_in.device_interval;
    let uri = format!("{}/devicelogin", state.login_root);
    let message = match query.get("mkt") {
        Some(language) if language.starts_with("nl") => {
            format!("Open in een browser de pagina {uri} en voer de code {user_code} in om u te verifiëren.")
        }
        _ => format!(
            "To sign in, use a web browser to open the page {uri} and enter the code {user_code} to authenticate."
        ),
    };
    let mut out = json!({
        "user_code": user_code,
        "device_code": device_code,
        "verification_uri": uri,
        "expires_in": DEVICE_LIFE,
        "message": message,
    });
    if let Some(interval) = interval {
        out["interval"] = interval.into();
    }
    let born = state.now_seconds();
    state.people.devices.push(Device {
        device_code,
        user_code,
        client_id: app.client_id,
        authority,
        scopes,
        can_be_challenged,
        born,
        answer: DeviceState::Pending,
        polled: None,
        // RFC 8628, section 3.2: five seconds where nothing is said.
        interval: interval.unwrap_or(5),
    });
    Ok(Reply::json(200, out))
}

/// Where a person enters the code.
pub(super) fn page(state: &mut State, incoming: &Incoming<'_>, browser: &str, query: &str) -> Reply {
    let form = if incoming.method == "POST" { Form::read(incoming) } else { Form::parse(query) };
    let form = match form.and_then(|form| form.only(&["otc", "next"], &[]).map(|()| form)) {
        Ok(form) => form,
        Err(refused) => return pages::failed(&refused),
    };
    let typed = form.get("otc").unwrap_or_default();
    if incoming.method != "POST" {
        return pages::device_code(typed, None);
    }
    let code = typed.trim().to_ascii_uppercase();
    let now = state.now_seconds();
    let waiting = state.people.devices.iter().any(|device| {
        device.user_code == code && matches!(device.answer, DeviceState::Pending) && now - device.born <= DEVICE_LIFE
    });
    if !waiting {
        return pages::device_code(typed, Some("That code didn't work. Check the code and try again."));
    }
    steps::begin(state, incoming, browser, Errand::Device(code))
}

pub(super) fn scopes(state: &State, user_code: &str) -> Scopes {
    let device = state.people.devices.iter().find(|device| device.user_code == user_code);
    device.map(|device| device.scopes.clone()).unwrap_or_default()
}

fn settle(state: &mut State, user_code: &str, answer: DeviceState) {
    if let Some(device) = state.people.devices.iter_mut().find(|device| device.user_code == user_code) {
        device.answer = answer;
    }
}

pub(super) fn accept(state: &mut State, user_code: &str, user: u32) -> Reply {
    settle(state, user_code, DeviceState::Accepted(user));
    pages::note("device-done", "You have signed in to the application on your device. You may now close this window.")
}

pub(super) fn decline(state: &mut State, user_code: &str) -> Reply {
    settle(state, user_code, DeviceState::Declined);
    pages::note("device-declined", "You did not sign in. You may now close this window.")
}
