//! Consent of an administrator for a whole tenant, at both endpoints.
//!
//! From "Admin consent on the Microsoft identity platform".

use super::super::reply::Reply;
use super::super::routes::Incoming;
use super::super::state::{App, State};
use super::codes::{Aadsts, aadsts};
use super::people::{AdminRequest, Authority, Errand};
use super::scope;
use super::token::Form;
use super::{authorize, pages, steps, tenant_of};

pub(super) fn handle(state: &mut State, incoming: &Incoming<'_>) -> Reply {
    let request = match read(state, incoming) {
        Ok(request) => request,
        Err(refused) => return pages::failed(&refused),
    };
    steps::open(state, incoming, Errand::AdminConsent(request))
}

fn read(state: &State, incoming: &Incoming<'_>) -> Result<AdminRequest, Aadsts> {
    let (path, query) = incoming.target.split_once('?').unwrap_or((incoming.target, ""));
    let tenant = tenant_of(path);
    let newer = path.ends_with("/v2.0/adminconsent");
    if incoming.method != "GET" {
        return Err(aadsts(90009).saying("Method not allowed."));
    }
    let form = Form::parse(query)?;
    form.only(&["client_id", "redirect_uri", "state"], if newer { &["scope"] } else { &[] })?;
    if tenant.eq_ignore_ascii_case("common") {
        return Err(aadsts(90130).saying("Admin consent needs a tenant or /organizations, not /common."));
    }
    let authority = state.authority(&tenant)?;
    let client_id = form.required("client_id")?;
    let app = state.app(client_id).cloned().ok_or_else(|| aadsts(700016))?;
    // At /organizations whoever signs in names the tenant; that asks nothing of the registration.
    if let Authority::Tenant(_) = authority {
        state.app_for(client_id, &authority, &tenant)?;
    }
    let redirect = form.required("redirect_uri")?;
    authorize::registered(&app, redirect)?;
    let scope = if newer { Some(form.required("scope")?.to_owned()) } else { None };
    if let Some(scope) = &scope {
        scope::check_admin_consent(scope)?;
    }
    Ok(AdminRequest {
        client_id: app.client_id,
        authority,
        redirect: redirect.to_owned(),
        state: form.get("state").map(str::to_owned),
        scope,
    })
}

/// Whether everything in the registration is asked for.
fn whole(request: &AdminRequest) -> bool {
    request.scope.as_deref().is_none_or(|scope| scope.split(' ').any(|word| word.ends_with("/.default")))
}

fn delegated(app: &App, request: &AdminRequest) -> Vec<scope::Permission> {
    if whole(request) {
        return app.delegated.iter().cloned().collect();
    }
    let scopes = request.scope.as_deref().map(scope::parse).and_then(Result::ok).unwrap_or_default();
    scopes.resources.iter().flat_map(|asked| asked.permissions(&app.delegated)).collect()
}

/// What the page lists.
pub(super) fn listed(app: &App, request: &AdminRequest) -> Vec<String> {
    let roles = app.requested.iter().filter(|_| whole(request)).cloned();
    roles.chain(delegated(app, request).into_iter().map(|permission| permission.name)).collect()
}

pub(super) fn granted(state: &mut State, request: &AdminRequest, user: u32) -> Reply {
    let tenant = state.user_numbered(user).tenant.clone();
    let home = tenant == state.tenant_id;
    let mut consented = Vec::new();
    if let Some(app) = state.apps.iter_mut().find(|app| app.client_id == request.client_id) {
        let roles = if whole(request) { app.requested.clone() } else { Default::default() };
        if home {
            app.permissions.extend(roles);
        } else {
            app.elsewhere.entry(tenant.clone()).or_default().extend(roles);
        }
        consented = delegated(app, request);
    }
    let key = (request.client_id.clone(), tenant.clone(), None);
    state.people.consent.entry(key).or_default().extend(consented);
    let mut parameters = vec![("admin_consent", "True".to_owned()), ("tenant", tenant)];
    parameters.extend(request.scope.clone().map(|scope| ("scope", scope)));
    parameters.extend(request.state.clone().map(|value| ("state", value)));
    authorize::go_back(&request.redirect, '?', &parameters)
}

pub(super) fn refused(state: &mut State, incoming: &Incoming<'_>, request: &AdminRequest, refused: &Aadsts) -> Reply {
    let mut parameters = authorize::refusal(state, incoming, refused);
    if request.scope.is_some() {
        // Said on failure as well.
        parameters.push(("admin_consent", "True".into()));
    } else if let Some((_, error)) = parameters.iter_mut().find(|(name, _)| *name == "error") {
        *error = "permission_denied".into();
    }
    parameters.extend(request.state.clone().map(|value| ("state", value)));
    authorize::go_back(&request.redirect, '?', &parameters)
}
