//! What a test says about signing in: of applications, of people, of tenants.

use super::super::content::guid;
use super::super::state;
use super::super::tenant::{App, AppBuilder, Mailbox, MailboxBuilder};
use super::super::{GraphFake, Shared};
use super::people::{Authority, Platform};
use super::scope::registered;
use super::{ImapAnswer, Permission, exchange};
use std::collections::BTreeSet;

/// "Redirect URI (reply URL) outline and limitations".
fn check_redirect(uri: &str) {
    let loopback = ["http://localhost", "http://127.0.0.1"]
        .iter()
        .any(|start| uri.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/', '?'])));
    let native = !uri.starts_with("http:") && uri.contains("://") && !uri.contains("[::1]");
    assert!(loopback || native, "a redirect URI is https, or http://localhost: {uri}");
    assert!(uri.len() <= 256, "a redirect URI has at most 256 characters: {uri}");
    assert!(!uri.contains(['!', '$', '\'', '(', ')', ',', ';', '#', '*']), "not allowed in a redirect URI: {uri}");
}

fn permissions<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<Permission> {
    let known =
        |name: &str| registered(name).unwrap_or_else(|| panic!("the fake knows no delegated permission `{name}`"));
    names.into_iter().map(known).collect()
}

impl AppBuilder {
    fn redirect(mut self, uri: &str, platform: Platform) -> Self {
        check_redirect(uri);
        self.app.redirects.push((uri.to_owned(), platform));
        self
    }

    /// A redirect URI of the platform "Web": codes are redeemed with the secret or an assertion. The port of
    /// `http://localhost` does not count; everything else does.
    ///
    /// # Panics
    ///
    /// If the service would not register it: no `https` and no loopback, a character that is not allowed.
    #[must_use]
    pub fn redirect_uri(self, uri: &str) -> Self {
        self.redirect(uri, Platform::Web)
    }

    /// A redirect URI of the platform "Mobile and desktop applications": codes are redeemed without any secret.
    ///
    /// # Panics
    ///
    /// As [`AppBuilder::redirect_uri`].
    #[must_use]
    pub fn native_redirect_uri(self, uri: &str) -> Self {
        self.redirect(uri, Platform::Native)
    }

    /// A redirect URI of the platform "Single-page application": no server can redeem its codes (AADSTS9002327).
    ///
    /// # Panics
    ///
    /// As [`AppBuilder::redirect_uri`].
    #[must_use]
    pub fn spa_redirect_uri(self, uri: &str) -> Self {
        self.redirect(uri, Platform::Spa)
    }

    /// "Allow public client flows": device codes without a secret.
    #[must_use]
    pub fn public_client(mut self) -> Self {
        self.app.public_flows = true;
        self
    }

    /// Delegated permissions of the registration: `Mail.ReadWrite`, `User.Read`, or of Exchange,
    /// `IMAP.AccessAsUser.All`. Nobody has consented to them yet.
    ///
    /// # Panics
    ///
    /// If the fake does not know one.
    #[must_use]
    pub fn delegated_permissions<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.app.delegated.extend(permissions(names));
        self
    }

    /// An administrator has consented to all delegated permissions for everyone: no consent page.
    #[must_use]
    pub fn consented(mut self) -> Self {
        self.consented = true;
        self
    }

    /// Application permissions of the registration that an administrator's consent will grant, and has not yet.
    #[must_use]
    pub fn requested_permissions<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.app.requested.extend(names.into_iter().map(str::to_owned));
        self
    }

    /// Accounts in any directory.
    #[must_use]
    pub fn multi_tenant(mut self) -> Self {
        self.app.multi_tenant = true;
        self
    }

    /// Assignment is required, and these people have it (AADSTS50105 for others).
    #[must_use]
    pub fn assigned_to<'a>(mut self, people: impl IntoIterator<Item = &'a str>) -> Self {
        self.app.assigned = Some(people.into_iter().map(str::to_owned).collect());
        self
    }

    /// A scope that tokens lack although it was consented to: the answer then grants less than was asked.
    #[must_use]
    pub fn withholding(mut self, scope: &str) -> Self {
        self.app.withheld.insert(scope.to_owned());
        self
    }

    /// `New-ServicePrincipal` and `Add-MailboxPermission` in Exchange: IMAP as the application for these mailboxes.
    #[must_use]
    pub fn imap_mailboxes<'a>(mut self, mailboxes: impl IntoIterator<Item = &'a str>) -> Self {
        self.app.imap_mailboxes = Some(mailboxes.into_iter().map(str::to_owned).collect());
        self
    }
}

impl App {
    /// Takes back what people, or an administrator for everyone, consented to (AADSTS65001 at the next refresh).
    /// Access tokens that are already issued keep it.
    pub fn withdraw_consent(&self) {
        self.shared.state().people.consent.retain(|(client_id, ..), _| *client_id != self.client_id);
    }

    /// An administrator consents to all delegated permissions for everyone in the fake's own tenant.
    pub fn consent_for_everyone(&self) {
        let mut state = self.shared.state();
        let tenant = state.tenant_id.clone();
        consent_for_everyone(&mut state, &self.client_id, &tenant);
    }

    /// Assignment is required from now on, and these people have it.
    pub fn assign_to<'a>(&self, people: impl IntoIterator<Item = &'a str>) {
        let people = people.into_iter().map(str::to_owned).collect();
        self.change(|app| app.assigned = Some(people));
    }
}

pub(crate) fn consent_for_everyone(state: &mut state::State, client_id: &str, tenant: &str) {
    let Some(delegated) = state.app(client_id).map(|app| app.delegated.clone()) else {
        return;
    };
    state.people.consent.entry((client_id.to_owned(), tenant.to_owned(), None)).or_default().extend(delegated);
}

impl MailboxBuilder {
    /// The password; otherwise [`Mailbox::password`] tells one.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// An administrator: can consent for everyone.
    #[must_use]
    pub fn admin(mut self) -> Self {
        self.admin = true;
        self
    }

    /// A user of another tenant ([`GraphFake::add_tenant`]).
    #[must_use]
    pub fn in_tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.to_owned());
        self
    }

    /// Someone else, by address, has full access to the mailbox.
    #[must_use]
    pub fn full_access(mut self, person: &str) -> Self {
        self.full_access.push(person.to_owned());
        self
    }
}

/// Signing in as the user of this mailbox.
impl Mailbox {
    /// The password.
    pub fn password(&self) -> String {
        self.user(|user, _| user.password.clone())
    }

    /// The name to sign in with: the user principal name.
    pub fn sign_in_name(&self) -> String {
        self.user(|user, _| user.upn.clone())
    }

    /// Gives someone, by address, full access to the mailbox, or takes it.
    pub fn set_full_access(&self, person: &str, allowed: bool) {
        self.user(|user, _| {
            user.full_access.retain(|known| !known.eq_ignore_ascii_case(person));
            if allowed {
                user.full_access.push(person.to_owned());
            }
        });
    }

    /// Every sign-in and refresh of this user ends with this AADSTS code, or with none again: 50076 for a second
    /// factor, 53003 for Conditional Access, 50053 for a lock, 50055 for an expired password.
    pub fn refuse_sign_in(&self, code: impl Into<Option<u32>>) {
        let code = code.into();
        self.user(|user, _| user.refused = code);
    }

    /// Disables or enables the account (AADSTS50057).
    pub fn set_enabled(&self, enabled: bool) {
        self.user(|user, _| user.enabled = enabled);
    }

    /// The user or an administrator revokes all sessions: every refresh token is refused from now on (AADSTS50173),
    /// and every browser asks for the password again.
    pub fn sign_out_everywhere(&self) {
        self.revoke(|_| true);
    }

    /// An administrator resets the password in the Entra admin center; the same as [`Mailbox::sign_out_everywhere`]
    /// for refresh tokens.
    pub fn reset_password(&self, password: &str) {
        self.set_password(password);
        self.revoke(|_| true);
    }

    /// The user changes the password: that revokes the refresh tokens of public clients, those of others live on.
    pub fn change_password(&self, password: &str) {
        self.set_password(password);
        self.revoke(|platform| platform != Platform::Web);
    }

    fn set_password(&self, password: &str) {
        let password = password.to_owned();
        self.user(|user, _| user.password = password);
    }

    fn revoke(&self, which: impl Fn(Platform) -> bool) {
        let number = self.number();
        let mut state = self.shared.state();
        state.people.revoke(number, 50173, |grant| which(grant.platform));
        state.people.end_sessions(number);
        let at = state.number();
        state.users[number as usize].revoked_at = Some(at);
    }

    /// The policy for sign-in frequency ends what this user's applications hold (AADSTS70043).
    pub fn end_by_sign_in_frequency(&self) {
        let number = self.number();
        self.shared.state().people.revoke(number, 70043, |_| true);
    }
}

impl GraphFake {
    /// A second tenant with this domain; returns its id. Users are put there with [`MailboxBuilder::in_tenant`];
    /// multi-tenant applications come there by consent.
    pub fn add_tenant(&self, domain: &str) -> String {
        let mut state = self.state();
        let id = guid(0x7e4a_1000 + state.number());
        state.people.other_tenants.push((id.clone(), vec![domain.to_ascii_lowercase()]));
        id
    }

    /// What Exchange Online would say to this bearer token and `user=` in `AUTHENTICATE XOAUTH2`.
    ///
    /// Servers in a process of their own ask the login site instead, as RFC 7662 has it: `POST /introspect` with
    /// `token=`, or `GET` with the token in the query or as bearer. The answer has `active`, and in `username` and
    /// `email` the address that the token opens. `/introspect/{mailbox}` asks about that mailbox, which applications
    /// and people with full access to another's mailbox need. For Dovecot's `oauth2` passdb:
    ///
    /// ```text
    /// introspection_mode = post
    /// introspection_url = http://127.0.0.1:PORT/introspect
    /// username_attribute = email
    /// active_attribute = active
    /// active_value = true
    /// ```
    pub fn imap_login(&self, token: &str, mailbox: &str) -> ImapAnswer {
        exchange::imap(&self.state(), token, mailbox)
    }
}

/// The tenant with this id or domain.
pub(crate) fn tenant_id(shared: &Shared, name: &str) -> String {
    match shared.state().authority(name) {
        Ok(Authority::Tenant(id)) => id,
        _ => panic!("the fake has no tenant `{name}`"),
    }
}
