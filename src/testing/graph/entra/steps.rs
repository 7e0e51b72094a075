//! What the pages ask next: the account, the password, what policy wants, consent.

use super::super::reply::Reply;
use super::super::routes::Incoming;
use super::super::state::{App, State};
use super::codes::{Aadsts, aadsts};
use super::jwt::opaque;
use super::people::{Errand, Flow, PAGE_LIFE, Prompt, Session};
use super::scope::Permission;
use super::token::Form;
use super::{authorize, consent, device, pages, vet};
use std::collections::BTreeSet;

const COOKIE: &str = "ESTSAUTH";

/// The browser that asks, and whether it was here before.
fn browser(state: &mut State, incoming: &Incoming<'_>) -> (String, bool) {
    let sent = incoming.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("cookie"));
    let known = sent
        .flat_map(|(_, value)| value.split(';'))
        .filter_map(|piece| piece.trim().strip_prefix(COOKIE)?.strip_prefix('='))
        .find(|id| state.people.browsers.contains_key(*id));
    if let Some(known) = known {
        return (known.to_owned(), true);
    }
    let id = opaque(state, "b.");
    state.people.browsers.insert(id.clone(), Vec::new());
    (id, false)
}

fn cookie(browser: &str) -> String {
    format!("{COOKIE}={browser}; Path=/; HttpOnly; SameSite=Lax")
}

/// The requests of the pages: `/login` and `/devicelogin`, and `.../logout`.
pub(super) fn handle(state: &mut State, incoming: &Incoming<'_>) -> Reply {
    let (path, query) = incoming.target.split_once('?').unwrap_or((incoming.target, ""));
    let (browser, known) = browser(state, incoming);
    let reply = match (path, incoming.method) {
        ("/devicelogin", _) => device::page(state, incoming, &browser, query),
        ("/login", "POST") => post(state, incoming, &browser).unwrap_or_else(|refused| pages::failed(&refused)),
        ("/login", _) => pages::failed(&aadsts(900561)),
        _ => {
            for session in state.people.browsers.entry(browser.clone()).or_default() {
                session.live = false;
            }
            pages::note("signed-out", "You signed out of your account")
        }
    };
    if known { reply } else { reply.with_header("Set-Cookie", cookie(&browser)) }
}

/// Someone comes with an errand: the first page, with a cookie for a browser that was never here.
pub(super) fn open(state: &mut State, incoming: &Incoming<'_>, errand: Errand) -> Reply {
    let (browser, known) = browser(state, incoming);
    let reply = begin(state, incoming, &browser, errand);
    if known { reply } else { reply.with_header("Set-Cookie", cookie(&browser)) }
}

/// The first page of an errand, or already the way back.
pub(super) fn begin(state: &mut State, incoming: &Incoming<'_>, browser: &str, errand: Errand) -> Reply {
    let mut flow = Flow {
        errand,
        browser: browser.to_owned(),
        typed: None,
        user: None,
        refused: None,
        consented: false,
        born: state.now_seconds(),
    };
    let sessions = state.people.browsers.entry(flow.browser.clone()).or_default().clone();
    let live: Vec<u32> = sessions.iter().filter(|session| session.live).map(|session| session.user).collect();
    let (prompt, hint) = match &flow.errand {
        Errand::Code(authorization) => (authorization.prompt, authorization.hint.clone()),
        Errand::Device(_) | Errand::AdminConsent(_) => (Some(Prompt::SelectAccount), None),
    };
    let hinted = hint.as_deref().and_then(|hint| state.person(hint)).filter(|user| live.contains(user));
    match prompt {
        Some(Prompt::None) => {
            let Errand::Code(authorization) = flow.errand.clone() else {
                return pages::failed(&aadsts(9002313));
            };
            let only = match live.as_slice() {
                [only] => Some(*only),
                _ => None,
            };
            let refused = match hinted.or(only) {
                Some(user) => silent(state, &authorization, user),
                None if live.is_empty() => Err(aadsts(50058)),
                None => Err(aadsts(16000)),
            };
            return match refused {
                Ok(user) => authorize::accept(state, &authorization, user),
                Err(refused) => authorize::refuse(state, incoming, &authorization, &refused),
            };
        }
        // Whoever is signed in goes on without being asked.
        None | Some(Prompt::Consent) => {
            flow.user = hinted.or(match live.as_slice() {
                [only] => Some(*only),
                _ => None,
            });
        }
        Some(Prompt::SelectAccount | Prompt::Login) => {}
    }
    let id = opaque(state, "f.");
    let list = prompt != Some(Prompt::Login) && !sessions.is_empty();
    let chosen = flow.user.is_some();
    state.people.flows.insert(id.clone(), flow);
    match (chosen, list) {
        (true, _) => proceed(state, &id),
        (false, true) => accounts(state, &id, &sessions),
        (false, false) => pages::username(&id, hint.as_deref().unwrap_or_default(), None),
    }
}

/// Without any page.
fn silent(state: &State, authorization: &super::people::Authorization, user: u32) -> Result<u32, Aadsts> {
    let app = state.app(&authorization.client_id).ok_or_else(|| aadsts(700016))?;
    admitted(state, &authorization.authority, user, 16000)?;
    vet(state, app, user)?;
    let wanted = wanted(app, &authorization.scopes);
    let known = state.consented(&app.client_id, state.user_numbered(user));
    if wanted.is_subset(&known) { Ok(user) } else { Err(aadsts(65001)) }
}

fn accounts(state: &State, id: &str, sessions: &[Session]) -> Reply {
    let list: Vec<(&str, &str, bool)> = sessions
        .iter()
        .map(|session| {
            let user = state.user_numbered(session.user);
            (user.display_name.as_str(), user.upn.as_str(), session.live)
        })
        .collect();
    pages::accounts(id, &list)
}

/// What someone did on a page.
fn post(state: &mut State, incoming: &Incoming<'_>, browser: &str) -> Result<Reply, Aadsts> {
    const FIELDS: [&str; 10] =
        ["flow", "account", "other", "username", "next", "password", "consent", "everyone", "device", "return"];
    let form = Form::read(incoming)?;
    form.only(&FIELDS, &[])?;
    let now = state.now_seconds();
    let id = form.required("flow")?.to_owned();
    let expired = || aadsts(50089);
    let flow = state.people.flows.get_mut(&id).ok_or_else(expired)?;
    if flow.browser != browser || now - flow.born > PAGE_LIFE {
        return Err(expired());
    }
    if form.get("return").is_some() {
        let refused = flow.refused.clone().unwrap_or_else(|| aadsts(65004));
        return Ok(give_up(state, incoming, &id, &refused));
    }
    if flow.refused.is_some() {
        return Err(expired());
    }
    let hint = match &flow.errand {
        Errand::Code(authorization) => authorization.hint.clone().unwrap_or_default(),
        _ => String::new(),
    };
    if form.get("other").is_some() {
        (flow.user, flow.typed) = (None, None);
        return Ok(pages::username(&id, &hint, None));
    }
    if let Some(name) = form.get("account") {
        let user = state.person(name).ok_or_else(expired)?;
        let sessions = state.people.browsers.get(browser);
        let known = sessions.into_iter().flatten().find(|session| session.user == user).ok_or_else(expired)?;
        let live = known.live;
        let flow = state.people.flows.get_mut(&id).ok_or_else(expired)?;
        if live {
            flow.user = Some(user);
            return Ok(proceed(state, &id));
        }
        flow.typed = Some(user);
        return Ok(pages::password(&id, &state.user_numbered(user).upn, None));
    }
    if let Some(name) = form.get("username") {
        let Some(user) = state.person(name) else {
            return Ok(pages::username(&id, name, Some(&aadsts(50034))));
        };
        let flow = state.people.flows.get_mut(&id).ok_or_else(expired)?;
        flow.typed = Some(user);
        return Ok(pages::password(&id, &state.user_numbered(user).upn, None));
    }
    if let Some(password) = form.get("password") {
        let user = flow.typed.ok_or_else(expired)?;
        if state.user_numbered(user).password != password {
            return Ok(pages::password(&id, &state.user_numbered(user).upn, Some(&aadsts(50126))));
        }
        if let Err(refused) = able(state, user) {
            return Ok(blocked(state, &id, refused));
        }
        let sessions = state.people.browsers.entry(browser.to_owned()).or_default();
        sessions.retain(|session| session.user != user);
        sessions.push(Session { user, live: true });
        let flow = state.people.flows.get_mut(&id).ok_or_else(expired)?;
        flow.user = Some(user);
        return Ok(proceed(state, &id));
    }
    if let Some(answer) = form.get("device") {
        let (Errand::Device(_), Some(_)) = (&flow.errand, flow.user) else {
            return Err(expired());
        };
        if answer == "cancel" {
            return Ok(give_up(state, incoming, &id, &aadsts(65004)));
        }
        return Ok(after_account(state, &id));
    }
    match (form.get("consent"), flow.user) {
        (Some("cancel"), Some(_)) => Ok(give_up(state, incoming, &id, &aadsts(65004))),
        (Some("accept"), Some(user)) => {
            flow.consented = true;
            let flow = flow.clone();
            accept_consent(state, &flow, user, form.get("everyone").is_some())?;
            Ok(after_account(state, &id))
        }
        _ => Err(aadsts(9002313)),
    }
}

/// Whether the account can sign in anywhere.
fn able(state: &State, user: u32) -> Result<(), Aadsts> {
    let user = state.user_numbered(user);
    match user.refused {
        // Told before any application is looked at.
        Some(code @ (50053 | 50055 | 50057)) => Err(aadsts(code)),
        _ if !user.enabled => Err(aadsts(50057)),
        _ => Ok(()),
    }
}

fn admitted(state: &State, authority: &super::people::Authority, user: u32, code: u32) -> Result<(), Aadsts> {
    let user = state.user_numbered(user);
    if authority.admits(&user.tenant) {
        return Ok(());
    }
    Err(aadsts(code).saying(format!(
        "User account '{}' from identity provider 'https://sts.windows.net/{}/' does not exist in the tenant and cannot access the application in that tenant. The account needs to be added as an external user in the tenant first. Sign out and sign in again with a different account.",
        user.upn, user.tenant
    )))
}

/// Someone is signed in: may they, and what else is to be asked?
fn proceed(state: &mut State, id: &str) -> Reply {
    let Some(flow) = state.people.flows.get(id).cloned() else {
        return pages::failed(&aadsts(50089));
    };
    let user = flow.user.unwrap_or_default();
    let (app, authority) = match subject(state, &flow.errand) {
        Ok(known) => known,
        Err(refused) => return pages::failed(&refused),
    };
    let code = if flow.typed == Some(user) { 50020 } else { 16000 };
    if let Err(refused) = admitted(state, &authority, user, code).and_then(|()| vet(state, &app, user)) {
        return blocked(state, id, refused);
    }
    match &flow.errand {
        // "Are you trying to sign in to ...?"
        Errand::Device(_) => pages::device_confirm(id, &app.name, &state.user_numbered(user).upn),
        Errand::AdminConsent(_) if !state.user_numbered(user).admin => blocked(state, id, admin_needed(state)),
        _ => after_account(state, id),
    }
}

/// The application an errand is about, and where its people may come from.
fn subject(state: &State, errand: &Errand) -> Result<(App, super::people::Authority), Aadsts> {
    let (client_id, authority) = match errand {
        Errand::Code(authorization) => (&authorization.client_id, &authorization.authority),
        Errand::AdminConsent(request) => (&request.client_id, &request.authority),
        Errand::Device(user_code) => {
            let device = state.people.devices.iter().find(|device| device.user_code == *user_code);
            let device = device.ok_or_else(|| aadsts(70018))?;
            (&device.client_id, &device.authority)
        }
    };
    let app = state.app(client_id).cloned().ok_or_else(|| aadsts(700016))?;
    Ok((app, authority.clone()))
}

fn wanted(app: &App, scopes: &super::scope::Scopes) -> BTreeSet<Permission> {
    scopes.resources.iter().flat_map(|asked| asked.permissions(&app.delegated)).collect()
}

fn admin_needed(state: &State) -> Aadsts {
    aadsts(if state.settings.sign_in.consent_requests { 90095 } else { 90094 })
}

/// Consent, and then back.
fn after_account(state: &mut State, id: &str) -> Reply {
    let Some(flow) = state.people.flows.get(id).cloned() else {
        return pages::failed(&aadsts(50089));
    };
    let number = flow.user.unwrap_or_default();
    let app = match subject(state, &flow.errand) {
        Ok((app, _)) => app,
        Err(refused) => return pages::failed(&refused),
    };
    let scopes = match &flow.errand {
        Errand::Code(authorization) => authorization.scopes.clone(),
        Errand::Device(user_code) => device::scopes(state, user_code),
        Errand::AdminConsent(request) => {
            if flow.consented {
                state.people.flows.remove(id);
                return consent::granted(state, request, number);
            }
            let names = consent::listed(&app, request);
            return pages::consent(id, &app.name, &state.user_numbered(number).upn, &names, false);
        }
    };
    let user = state.user_numbered(number);
    let wanted = wanted(&app, &scopes);
    let known = state.consented(&app.client_id, user);
    let missing: Vec<&Permission> = wanted.difference(&known).collect();
    let again = matches!(&flow.errand, Errand::Code(asked) if asked.prompt == Some(Prompt::Consent));
    if !missing.is_empty() || (again && !flow.consented) {
        let beyond = !state.settings.sign_in.people_consent || missing.iter().any(|permission| permission.admin_only());
        if beyond && !user.admin && !missing.is_empty() {
            let refused = admin_needed(state);
            if let Some(flow) = state.people.flows.get_mut(id) {
                flow.refused = Some(refused.clone());
            }
            return pages::admin_approval(id, &app.name, &refused);
        }
        let mut names: Vec<String> = wanted.iter().map(|permission| permission.name.clone()).collect();
        names.extend(scopes.openid.iter().map(|name| (*name).to_owned()));
        return pages::consent(id, &app.name, &user.upn, &names, user.admin);
    }
    state.people.flows.remove(id);
    match &flow.errand {
        Errand::Code(authorization) => authorize::accept(state, authorization, number),
        Errand::Device(user_code) => device::accept(state, user_code, number),
        Errand::AdminConsent(_) => pages::failed(&aadsts(50089)),
    }
}

fn accept_consent(state: &mut State, flow: &Flow, number: u32, everyone: bool) -> Result<(), Aadsts> {
    let (app, _) = subject(state, &flow.errand)?;
    let scopes = match &flow.errand {
        Errand::Code(authorization) => authorization.scopes.clone(),
        Errand::Device(user_code) => device::scopes(state, user_code),
        Errand::AdminConsent(_) => return Ok(()),
    };
    let user = state.user_numbered(number);
    let who = (!(everyone && user.admin)).then_some(number);
    let key = (app.client_id.clone(), user.tenant.clone(), who);
    let wanted = wanted(&app, &scopes);
    state.people.consent.entry(key).or_default().extend(wanted);
    Ok(())
}

/// A page that says why it does not go on, with the way back.
fn blocked(state: &mut State, id: &str, refused: Aadsts) -> Reply {
    let reply = pages::blocked(id, &refused);
    if let Some(flow) = state.people.flows.get_mut(id) {
        flow.refused = Some(refused);
    }
    reply
}

/// Back without what was asked for.
fn give_up(state: &mut State, incoming: &Incoming<'_>, id: &str, refused: &Aadsts) -> Reply {
    let Some(flow) = state.people.flows.remove(id) else {
        return pages::failed(&aadsts(50089));
    };
    match &flow.errand {
        Errand::Code(authorization) => authorize::refuse(state, incoming, authorization, refused),
        Errand::AdminConsent(request) => consent::refused(state, incoming, request, refused),
        Errand::Device(user_code) => device::decline(state, user_code),
    }
}
