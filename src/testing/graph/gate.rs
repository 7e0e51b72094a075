//! Everything that stands between a request and its work, in the service's order: gateway (faults),
//! token, address, permission, mailbox, policy, limits.

use super::address::{Action, Op, no_segment, operation};
use super::delta;
use super::entra::Token;
use super::faults::{Kind as FaultKind, Seen};
use super::log::Route;
use super::mime;
use super::odata::Options;
use super::render::{self, Preferences, View};
use super::reply::{Refusal, Reply};
use super::routes::{Outcome, Permits, Request, Struck, decide, refuse, retry_after, throttled};
use super::state::{MailboxState, Policy, ROOT, State};

/// Performs one request or batch part.
pub(crate) fn perform(
    state: &mut State,
    request: &Request<'_>,
    token: Result<Token, Refusal>,
    permits: &mut Permits,
    versioned: bool,
) -> Outcome {
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    // Below /me a person's token means their own mailbox.
    let person = token.as_ref().ok().filter(|token| token.scopes.is_some()).map(|token| token.object_id.clone());
    let own = person.as_ref().and_then(|id| {
        let below = path.strip_prefix("/me")?;
        (!below.is_empty() && below.starts_with('/')).then(|| format!("/users/{id}{below}"))
    });
    let op = if versioned {
        operation(own.as_deref().unwrap_or(path))
    } else {
        Err(Refusal::bad_request("Invalid version."))
    };
    let route = op.as_ref().map_or(Route::Other, |op| op.route(request.method));
    let user = op.as_ref().ok().and_then(Op::user);
    let user = user.and_then(|user| state.user(user));
    let names = user.map(|user| state.users[user].names()).unwrap_or_default();
    let fault =
        decide(state, &Seen { route, method: request.method, mailbox_names: &names, in_batch: request.lane.is_some() });
    let preferences: Vec<&str> = request
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("prefer"))
        .map(|(_, value)| value.as_str())
        .collect();
    let preferences = Preferences::parse(&preferences);
    let client_id = token.as_ref().ok().map(|token| token.client_id.clone());
    let mut call = Call { state, request, query, path, preferences, user, tenant: String::new(), basic: false };
    let result = call.gate(fault.as_ref(), token, op, permits);
    let mut code = String::new();
    let reply = match result {
        Ok(mut reply) => {
            if let Some(applied) = preferences.applied() {
                reply = reply.with_header("Preference-Applied", applied);
            }
            reply
        }
        Err(refusal) => {
            code.clone_from(&refusal.code);
            refuse(state, &refusal, request.header("client-request-id"))
        }
    };
    let mut outcome = Outcome::new(route, reply);
    outcome.code = code;
    outcome.client_id = client_id;
    outcome.mailbox = user.map(|user| {
        let user = &state.users[user];
        user.mail.clone().unwrap_or_else(|| user.upn.clone())
    });
    outcome.immutable_ids = preferences.immutable_ids;
    outcome.apply(state, fault);
    outcome
}

pub(super) struct Call<'a> {
    pub(super) state: &'a mut State,
    pub(super) request: &'a Request<'a>,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) preferences: Preferences,
    pub(super) user: Option<usize>,
    /// Of the token, once that is known.
    pub(super) tenant: String,
    pub(super) basic: bool,
}

impl Call<'_> {
    pub(super) fn gate(
        &mut self,
        fault: Option<&Struck>,
        token: Result<Token, Refusal>,
        op: Result<Op, Refusal>,
        permits: &mut Permits,
    ) -> Result<Reply, Refusal> {
        match fault.map(|fault| &fault.kind) {
            Some(FaultKind::Throttle { retry_after: value, .. }) => {
                let refusal = throttled();
                return Err(match retry_after(self.state, value) {
                    Some(value) => refusal.with_header("Retry-After", value),
                    None => refusal,
                });
            }
            Some(FaultKind::Error { status, code, message, retry_after: value }) => {
                let refusal = Refusal::new(*status, code, message.clone());
                return Err(match retry_after(self.state, value) {
                    Some(value) => refusal.with_header("Retry-After", value),
                    None => refusal,
                });
            }
            // The page of the gateway is put in place of this.
            Some(FaultKind::Html { status }) => return Ok(Reply::empty(*status)),
            _ => {}
        }
        let token = token?;
        match fault.map(|fault| &fault.kind) {
            Some(FaultKind::TokenExpired) => {
                self.state.dead_tokens.insert(token.unique);
                return Err(Refusal::unauthenticated("Lifetime validation failed, the token is expired."));
            }
            Some(FaultKind::ClaimsChallenge { claims }) => {
                self.state.dead_tokens.insert(token.unique);
                return Err(challenge(claims));
            }
            _ => {}
        }
        if self.signed_out_since(&token) {
            let now = self.state.now_seconds();
            return Err(challenge(&format!(
                "{{\"access_token\":{{\"nbf\":{{\"essential\":true,\"value\":\"{now}\"}}}}}}"
            )));
        }
        self.tenant.clone_from(&token.tenant);
        let op = op?;
        if !op.methods().contains(&self.request.method) && !matches!(op, Op::Me | Op::NotModelled) {
            return Err(Refusal::new(
                405,
                "Request_BadRequest",
                format!("Specified HTTP method is not allowed for the request target: {}.", self.request.method),
            ));
        }
        if self.request.method == "POST" && self.request.no_length {
            return Err(Refusal::new(411, "LengthRequired", "Length Required"));
        }
        if op == Op::Me {
            if token.scopes.is_none() {
                return Err(Refusal::bad_request("/me request is only valid with delegated authentication flow."));
            }
            self.directory(&token, &op)?;
            return self.one_user(&token.object_id);
        }
        if op == Op::NotModelled {
            return Err(Refusal::new(501, "NotModelledByTheFake", "Graph has this, the fake has not."));
        }
        match &op {
            Op::Users => {
                self.directory(&token, &op)?;
                return self.users();
            }
            Op::User(name) => {
                self.directory(&token, &op)?;
                return self.one_user(name);
            }
            Op::Translate(_) => self.directory(&token, &op)?,
            _ => {}
        }
        let user = self.mailbox(&token, &op, permits)?;
        if let Some(FaultKind::MovedFirst { folder }) = fault.map(|fault| &fault.kind) {
            self.someone_else(user, &op, Some(folder));
        } else if let Some(FaultKind::DeletedFirst) = fault.map(|fault| &fault.kind) {
            self.someone_else(user, &op, None);
        }
        self.run(user, op)
    }

    /// A capable client is told at once that the person's sessions were revoked.
    fn signed_out_since(&self, token: &Token) -> bool {
        let user = self.state.users.iter().find(|user| user.id == token.object_id);
        let issued = u64::from_str_radix(&token.unique, 16).unwrap_or_default();
        token.can_be_challenged && user.and_then(|user| user.revoked_at).is_some_and(|revoked| issued < revoked)
    }

    pub(super) fn granted(&self, token: &Token, needed: &[&str], user: Option<usize>) -> bool {
        if let Some(scopes) = &token.scopes {
            let own = user.is_some_and(|user| self.state.users[user].id == token.object_id);
            return scopes.iter().any(|scope| match scope.strip_suffix(".Shared") {
                // "Mail a user can access, including their own and shared mail."
                Some(scope) => needed.contains(&scope),
                None => own && needed.contains(&scope.as_str()),
            });
        }
        if token.roles.iter().any(|role| needed.contains(&role.as_str())) {
            return true;
        }
        // RBAC for Applications adds to the token, it is not in it.
        let Some(app) = self.state.app(&token.client_id) else {
            return false;
        };
        app.rbac.iter().any(|(permission, scope)| {
            needed.contains(&permission.as_str())
                && match (scope, user) {
                    (None, _) => true,
                    (Some(scope), Some(user)) => scope.iter().any(|name| self.state.users[user].goes_by(name)),
                    (Some(_), None) => false,
                }
        })
    }

    pub(super) fn directory(&self, token: &Token, op: &Op) -> Result<(), Refusal> {
        let granted = match &token.scopes {
            Some(scopes) => {
                let own = op.user().is_none_or(|name| {
                    self.state.user(name).is_some_and(|user| self.state.users[user].id == token.object_id)
                });
                let needed = op.delegated_permissions(own);
                scopes.iter().any(|scope| needed.contains(&scope.as_str()))
            }
            None => self.granted(token, op.permissions(self.request.method), None),
        };
        if granted {
            Ok(())
        } else {
            Err(Refusal::new(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation."))
        }
    }

    /// Everything that stands between a token and a mailbox.
    pub(super) fn mailbox(&mut self, token: &Token, op: &Op, permits: &mut Permits) -> Result<usize, Refusal> {
        let needed = op.permissions(self.request.method);
        let app = self.state.app(&token.client_id);
        let nothing_granted =
            token.scopes.is_none() && token.roles.is_empty() && app.is_none_or(|app| app.rbac.is_empty());
        if nothing_granted {
            return Err(Refusal::access_denied());
        }
        let name = op.user().unwrap_or_default();
        let user = self
            .user
            .filter(|user| self.state.users[*user].tenant == token.tenant)
            .ok_or_else(|| Refusal::new(404, "ErrorInvalidUser", format!("The requested user '{name}' is invalid.")))?;
        match self.state.users[user].state {
            MailboxState::Ready => {}
            MailboxState::NotEnabled => {
                return Err(Refusal::new(
                    404,
                    "MailboxNotEnabledForRESTAPI",
                    "The mailbox is either inactive, soft-deleted, or is hosted on-premise.",
                ));
            }
            MailboxState::Undiscoverable => {
                return Err(Refusal::new(404, "ResourceNotFound", "Resource could not be discovered."));
            }
            MailboxState::NonExistent => {
                return Err(Refusal::new(
                    404,
                    "ErrorNonExistentMailbox",
                    "The SMTP address has no mailbox associated with it.",
                ));
            }
            MailboxState::UserDeleted => {
                return Err(Refusal::new(404, "ErrorInvalidUser", format!("The requested user '{name}' is invalid.")));
            }
        }
        let blocked = match app.and_then(|app| app.policy.as_ref()) {
            // The policy is about applications; people are let in by their own rights.
            _ if token.scopes.is_some() => false,
            None => false,
            Some(Policy::Restrict(names)) => !names.iter().any(|name| self.state.users[user].goes_by(name)),
            Some(Policy::Deny(names)) => names.iter().any(|name| self.state.users[user].goes_by(name)),
        };
        if blocked {
            return Err(Refusal::new(
                403,
                "ErrorAccessDenied",
                "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings.",
            ));
        }
        if !self.granted(token, needed, Some(user)) {
            return Err(Refusal::access_denied());
        }
        let mailbox = &self.state.users[user];
        if token.scopes.is_some()
            && mailbox.id != token.object_id
            && !self.state.has_full_access(mailbox, &token.object_id)
        {
            return Err(match &self.state.settings.stranger_code {
                None => Refusal::access_denied(),
                Some(code) => Refusal::new(404, code, "The specified folder could not be found in the store."),
            });
        }
        self.basic = !self.granted(token, &["Mail.Read", "Mail.ReadWrite"], Some(user));

        let number = self.state.users[user].number;
        let now = self.state.now();
        let window = self.state.windows.entry((token.client_id.clone(), number)).or_insert((now, 0));
        if now - window.0 >= 600_000_000 {
            *window = (now, 0);
        }
        window.1 += 1;
        let over_rate = window.1 > self.state.settings.requests_per_ten_minutes;
        let lane = self.request.lane.unwrap_or_default();
        if over_rate || !permits.admit(self.state, &token.client_id, number, lane) {
            self.state.counters.throttled += 1;
            let refusal = throttled();
            return Err(match retry_after(self.state, &self.state.settings.retry_after) {
                Some(value) => refusal.with_header("Retry-After", value),
                None => refusal,
            });
        }
        Ok(user)
    }

    pub(super) fn someone_else(&mut self, user: usize, op: &Op, folder: Option<&str>) {
        let now = self.state.now_seconds();
        let user = &mut self.state.users[user];
        let Some(id) = op.message() else {
            return;
        };
        let Ok(message) = user.store.find(user.number, id) else {
            return;
        };
        let key = message.key;
        match folder {
            Some(folder) => {
                let target = user.store.ensure_path(folder);
                user.store.move_message(user.number, key, target, now);
            }
            None => user.store.remove_message(user.number, key),
        }
    }

    pub(super) fn run(&mut self, user: usize, op: Op) -> Result<Reply, Refusal> {
        let method = self.request.method;
        match op {
            Op::MailboxSettings(_, purpose) => self.mailbox_settings(user, purpose),
            Op::Folders(_) if method == "POST" => self.create_folder(user, ROOT),
            Op::Folders(_) => self.list_folders(user, ROOT),
            Op::Children(_, parent) => {
                let number = self.state.users[user].number;
                let parent = self.state.users[user].store.find_folder(number, &parent)?;
                if method == "POST" { self.create_folder(user, parent) } else { self.list_folders(user, parent) }
            }
            Op::Folder(_, folder) => self.one_folder(user, &folder),
            Op::Messages(_, folder) => self.list_messages(user, folder.as_deref()),
            Op::Delta(_, folder) => delta::list(self, user, &folder),
            Op::Message(_, folder, id) => {
                let key = self.find(user, folder.as_deref(), &id)?;
                match method {
                    "PATCH" => self.update(user, key),
                    "DELETE" => self.delete(user, key),
                    _ => self.one_message(user, key),
                }
            }
            Op::MessageValue(_, folder, id) => {
                self.no_options()?;
                let key = self.find(user, folder.as_deref(), &id)?;
                let item = self.state.users[user].store.messages[&key].item();
                Ok(Reply::raw(200, mime::to_mime(&item), "text/plain"))
            }
            Op::MessageAction(_, folder, id, action) => {
                self.no_options()?;
                let key = self.find(user, folder.as_deref(), &id)?;
                match action {
                    Action::Move => self.move_or_copy(user, key, false),
                    Action::Copy => self.move_or_copy(user, key, true),
                    Action::PermanentDelete => {
                        let user = &mut self.state.users[user];
                        user.store.remove_message(user.number, key);
                        Ok(Reply::empty(204))
                    }
                }
            }
            Op::Attachments(_, folder, id) => {
                let key = self.find(user, folder.as_deref(), &id)?;
                self.list_attachments(user, key)
            }
            Op::Attachment(_, folder, id, attachment) => {
                let key = self.find(user, folder.as_deref(), &id)?;
                self.one_attachment(user, key, &attachment)
            }
            Op::AttachmentValue(_, folder, id, attachment) => {
                self.no_options()?;
                let key = self.find(user, folder.as_deref(), &id)?;
                self.attachment_value(user, key, &attachment)
            }
            Op::Translate(_) => self.translate(user),
            Op::Me | Op::Users | Op::User(_) | Op::NotModelled => Err(no_segment("unreachable segment")),
        }
    }

    pub(super) fn no_options(&self) -> Result<(), Refusal> {
        const NONE: super::odata::Schema = super::odata::Schema { options: &[], ..render::ONE_MESSAGE };
        Options::parse(self.query, &NONE).map(|_| ())
    }

    /// The message, in the folder that the path names.
    pub(super) fn find(&self, user: usize, folder: Option<&str>, id: &str) -> Result<u64, Refusal> {
        let user = &self.state.users[user];
        let message = user.store.find(user.number, id)?;
        if let Some(folder) = folder
            && user.store.find_folder(user.number, folder)? != message.folder
        {
            return Err(Refusal::item_not_found());
        }
        Ok(message.key)
    }

    pub(super) fn view<'b>(&'b self, user: usize, options: &'b Options) -> View<'b> {
        View {
            settings: &self.state.settings,
            user: &self.state.users[user],
            preferences: self.preferences,
            select: options.select.as_ref(),
            expand: &options.expand,
            basic: self.basic,
        }
    }

    /// `Mail.ReadBasic` covers neither bodies nor attachments nor extended properties.
    pub(super) fn check_basic(&self, options: &Options) -> Result<(), Refusal> {
        let asks = options.select.iter().flatten().any(|name| render::NOT_BASIC.contains(&name.as_str()));
        if self.basic && (asks || !options.expand.is_empty() || options.search.is_some()) {
            return Err(Refusal::access_denied());
        }
        Ok(())
    }

    pub(super) fn context(&self, tail: &str) -> String {
        format!("{}/v1.0/$metadata#users{tail}", self.state.graph_root)
    }
}

fn challenge(claims: &str) -> Refusal {
    let mut refusal = Refusal::unauthenticated(
        "Continuous access evaluation resulted in challenge with result: InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp",
    );
    let claims = base64_simd::STANDARD.encode_to_string(claims);
    refusal.headers = vec![(
        "WWW-Authenticate".into(),
        format!(
            "Bearer realm=\"\", authorization_uri=\"https://login.microsoftonline.com/common/oauth2/authorize\", client_id=\"00000003-0000-0000-c000-000000000000\", error=\"insufficient_claims\", claims=\"{claims}\""
        ),
    )];
    refusal
}
