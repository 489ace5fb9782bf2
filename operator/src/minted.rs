//! Users of a hub that the operator makes: for each role of an object one that may do what the role needs, and another that follows it.
//!
//! Each look reads what the secret and the hub have, a pure function says what the next step is, and the step is taken; then it is looked
//! again. A password is nowhere but in the secret and, as a hash, at the hub.

mod decide;
mod grant;
mod kept;
mod management;
mod role;
mod uses;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use drover_worker::hub::HubAddress;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    jiff::{SignedDuration, Timestamp},
};
use kube::{Client, Resource, ResourceExt as _};
use rustls::crypto::SecureRandom;

use crate::{
    audit::{Cause, Effect, Outcome, Verb},
    lease::Fence,
    metrics::Metrics,
    pipeline::{revision::digest, snapshot::Owned},
    problem::Problem,
};
pub use decide::{Lives, Seen, Side, Step, User};
pub use grant::{Grant, of_pipeline, of_query};
pub(crate) use kept::Kept;
use kept::{Password, Place};
pub(crate) use management::KEY;
pub use management::{Management, ManagementAddress};
pub use role::{Generation, Role, user};
pub use uses::Uses;
pub(crate) use uses::exchanges;

/// What was seen less than this long ago is still so.
const FRESH: Duration = Duration::from_mins(1);
/// All of one look.
const PATIENCE: Duration = Duration::from_secs(20);
/// Steps that a role may take at one look: all there are, and some again.
const STEPS: usize = 16;
/// The API server's clock, which says when pods were made, differs from this one's by less.
const CLOCKS: SignedDuration = SignedDuration::from_mins(1);
/// Digits of what changes with an address: all of them, since fewer are made of these.
const PRINT: usize = 64;
/// Random bytes of a password, which is written in hexadecimal digits.
const PASSWORD: usize = 32;

/// Whose users they are, and what there is to be.
#[derive(Debug, Clone)]
pub struct Order {
    /// The object.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The secrets are its.
    pub owner: OwnerReference,
    /// Labels of the secrets.
    pub labels: BTreeMap<String, String>,
    /// What each role may do.
    pub roles: Vec<(Role, Grant)>,
    /// Keys of secrets that pods are told of.
    pub used: Uses,
    /// Days after which a user is followed by another.
    pub days: u32,
}

/// What there is to be for an object with what it owns.
pub(crate) fn order<K: Resource<DynamicType = ()>>(
    object: &K,
    owned: &Owned,
    labels: BTreeMap<String, String>,
    roles: Vec<(Role, Grant)>,
    days: u32,
) -> Order {
    Order {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        owner: object.controller_owner_ref(&()).unwrap_or_default(),
        labels,
        roles,
        used: uses::keys(owned),
        days,
    }
}

/// A key of a secret that has an address with a user in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRef {
    /// The secret.
    pub secret: String,
    /// Its key.
    pub key: String,
    /// Changes with the address.
    pub print: String,
}

/// Whom pods are told of, by role.
pub type Keys = BTreeMap<Role, KeyRef>;

/// What a look at an object's users has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Whom pods are told of.
    pub keys: Keys,
    /// Users that others have followed for long, and that something is still told of or connected as.
    pub held_up: Vec<String>,
    /// Secrets for others than pods that are gone and not made again, each with both of its users, as which somebody is connected.
    pub unmade: Vec<(String, [String; 2])>,
    /// Why the rest could not be done.
    pub problem: Option<Problem>,
}

/// What is remembered of each object, by its UID: what was seen when, and the hub that its users are at.
#[derive(Debug, Default)]
pub struct Minted {
    seen: Mutex<HashMap<String, (String, Instant, Found)>>,
    hubs: Mutex<HashMap<String, Arc<Management>>>,
    ending: Mutex<HashMap<String, Instant>>,
    fence: Fence,
}

impl Minted {
    /// Of a process that may change users while a fence is open.
    pub(crate) fn new(fence: Fence) -> Self {
        Self { fence, ..Self::default() }
    }

    /// The management API at an address.
    pub(crate) fn management(&self, address: ManagementAddress) -> Result<Arc<Management>, Problem> {
        Management::new(address).map(|management| Arc::new(management.fenced(self.fence.clone())))
    }

    /// Makes sure of an object's users; what was seen to be well a moment ago is not looked at again.
    pub(crate) async fn ensure(&self, look: &Look<'_>, address: &ManagementAddress, at: Instant) -> Found {
        // Pods come and go; what they are told of is what counts.
        let Order { namespace, name, uid, owner, labels, roles, used, days } = look.order;
        let used: Vec<_> = used.keys().collect();
        let what =
            format!("{namespace} {name} {owner:?} {labels:?} {roles:?} {used:?} {days} {address:?} {:?}", look.hub);
        if let Some((known, when, found)) = self.seen().get(uid)
            && *known == what
            && at.duration_since(*when) < FRESH
        {
            return found.clone();
        }
        let management = match self.management(address.clone()) {
            Ok(management) => management,
            Err(problem) => return Found { problem: Some(problem), ..look.blind().await },
        };
        self.hubs().insert(uid.clone(), Arc::clone(&management));
        let found = look.settle(&management).await;
        let mut seen = self.seen();
        match &found.problem {
            None => seen.insert(uid.clone(), (what, at, found.clone())),
            Some(_) => seen.remove(uid),
        };
        found
    }

    /// The hub that an object's users are at, as far as this process knows.
    pub(crate) fn hub_of(&self, uid: &str) -> Option<Arc<Management>> {
        self.hubs().get(uid).cloned()
    }

    /// How long this process has tried to take an object's users away.
    pub(crate) fn ending(&self, uid: &str, now: Instant) -> Duration {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(*ending.entry(uid.to_owned()).or_insert(now))
    }

    /// The object is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.seen().remove(uid);
        self.hubs().remove(uid);
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, (String, Instant, Found)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hubs(&self) -> MutexGuard<'_, HashMap<String, Arc<Management>>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look at an object's users.
pub struct Look<'a> {
    /// The API server.
    pub client: &'a Client,
    /// Counts writes.
    pub metrics: &'a Metrics,
    /// What there is to be.
    pub order: &'a Order,
    /// The hub, as the object's secret names it.
    pub hub: &'a HubAddress,
    /// On whose behalf.
    pub cause: &'a Cause,
    /// Now.
    pub now: Timestamp,
}

/// What a role has.
struct Known {
    seen: Seen,
    kept: Kept,
}

impl Look<'_> {
    /// Takes every step that can be taken now.
    pub async fn settle(&self, management: &Management) -> Found {
        let silent = |_| Some(Problem::new("ManagementUnreachable", "the hub's management API: no answer in time"));
        let mut found = Found::default();
        let work = async {
            for (role, grant) in &self.order.roles {
                if let Err(problem) = self.role(management, *role, grant, &mut found).await {
                    return Some(problem);
                }
            }
            self.others(management).await.err()
        };
        let problem = tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(silent);
        match problem {
            None => found,
            // Pods go on being told of those that they were told of.
            problem => Found { problem, ..self.blind().await },
        }
    }

    /// Roles that the object has no more keep their users, whom devices may know, and may do nothing.
    async fn others(&self, management: &Management) -> Result<(), Problem> {
        let wanted = |role: &Role| self.order.roles.iter().any(|(wanted, _)| wanted == role);
        let all = self.order.roles.first().map_or(&[][..], |(role, _)| role.siblings());
        for role in all.iter().filter(|role| !wanted(role)) {
            let kept = Kept::look(self.client, &self.place(&role.secret(&self.order.name))).await?;
            if !kept.passwords.is_empty() {
                self.role(management, *role, &Grant::default(), &mut Found::default()).await?;
            }
        }
        Ok(())
    }

    /// What the secrets alone tell.
    pub(crate) async fn blind(&self) -> Found {
        let mut keys = Keys::new();
        for (role, _) in &self.order.roles {
            let secret = role.secret(&self.order.name);
            let kept = Kept::look(self.client, &self.place(&secret)).await;
            keys.extend(kept.ok().and_then(|kept| Some((*role, key(secret, &kept)?))));
        }
        Found { keys, ..Found::default() }
    }

    async fn role(&self, management: &Management, role: Role, grant: &Grant, found: &mut Found) -> Result<(), Problem> {
        let lives = Lives::new(self.order.days, role.is_outside());
        for _ in 0..STEPS {
            let known = self.observe(management, role, grant).await?;
            if let Some(step) = known.seen.next(lives, self.now) {
                self.act(management, role, grant, known.kept, step).await?;
                continue;
            }
            if known.seen.current().is_none() {
                let users = Generation::BOTH.map(|generation| self.user(role, generation));
                found.unmade.push((role.secret(&self.order.name), users));
            }
            found.keys.extend(key(role.secret(&self.order.name), &known.kept).map(|key| (role, key)));
            found.held_up.extend(known.seen.held_up(lives, self.now).map(|g| self.user(role, g)));
            return Ok(());
        }
        Err(Problem::new("ManagementFailed", "users change at the hub while they are looked at: it is tried again"))
    }

    async fn observe(&self, management: &Management, role: Role, grant: &Grant) -> Result<Known, Problem> {
        let secret = role.secret(&self.order.name);
        let kept = Kept::look(self.client, &self.place(&secret)).await?;
        let mut sides = [Side::default(); 2];
        for (side, generation) in sides.iter_mut().zip(Generation::BOTH) {
            let (name, password) = (self.user(role, generation), kept.passwords.get(&generation));
            side.minted = password.map(|password| password.minted);
            side.used = self.is_used(&secret, generation, &kept);
            let Some(told) = management.user(&name).await? else { continue };
            let granted = management.grant(&name, &self.vhost()?).await?.as_ref() == Some(grant);
            let fits = !told.tagged && password.is_some_and(|password| told.has(&password.text));
            side.user = Some(User { fits, granted });
            if kept.current != Some(generation) {
                side.connections = management.connections(&name).await?;
            }
        }
        let right = |(generation, password): (&Generation, &Password)| {
            password.uri == kept::address(&self.hub.uri, &self.user(role, *generation), &password.text)
        };
        let addressed = kept.passwords.iter().all(right) && self.aliased(&secret, &kept);
        let [a, b] = sides;
        Ok(Known { seen: Seen { current: kept.current, addressed, turned: kept.turned, a, b }, kept })
    }

    async fn act(
        &self,
        management: &Management,
        role: Role,
        grant: &Grant,
        mut kept: Kept,
        step: Step,
    ) -> Result<(), Problem> {
        match step {
            Step::Write(generation) => {
                let (text, minted) = (password()?, self.now);
                kept.passwords.insert(generation, Password { text, minted, uri: String::new() });
                self.keep(role, kept, "a user needs a password").await
            }
            Step::Address => self.keep(role, kept, "the hub's address is another").await,
            Step::Turn(generation) => {
                (kept.current, kept.turned) = (Some(generation), Some(self.now));
                self.keep(role, kept, "its user is made, and pods are told of it").await
            }
            Step::Drop(generation) => {
                kept.passwords.remove(&generation);
                self.keep(role, kept, "the user of a password is gone").await
            }
            Step::Make(generation) => {
                let Some(password) = kept.passwords.get(&generation) else { return Ok(()) };
                let name = self.user(role, generation);
                let made = management.make(&name, random()?, &password.text).await;
                tell(&self.cause.because("a role needs it"), Verb::Create, "user", &name, &made);
                made
            }
            Step::Grant(generation) => {
                let name = self.user(role, generation);
                let granted = management.permit(&name, &self.vhost()?, grant).await;
                tell(
                    &self.cause.because("its role needs these and no others"),
                    Verb::Apply,
                    "permissions",
                    &name,
                    &granted,
                );
                granted
            }
            Step::Delete(generation) => {
                let name = self.user(role, generation);
                let gone = management.delete(&name).await;
                tell(
                    &self.cause.because("another has followed it, and nothing uses it"),
                    Verb::Delete,
                    "user",
                    &name,
                    &gone,
                );
                gone.map(drop)
            }
        }
    }

    /// Writes the secret, with the addresses as they should be.
    pub(crate) async fn keep(&self, role: Role, mut kept: Kept, why: &'static str) -> Result<(), Problem> {
        for (generation, password) in &mut kept.passwords {
            password.uri = kept::address(&self.hub.uri, &self.user(role, *generation), &password.text);
        }
        let secret = role.secret(&self.order.name);
        kept.aliases = self.aliases(&secret, &kept);
        let user = |generation| self.user(role, generation);
        kept.write(self.client, &self.place(&secret), user, self.metrics, &self.cause.because(why)).await
    }

    /// A pod is told of a user, or is told of the other one and is older than that one's password: it may have this one by an alias.
    fn is_used(&self, secret: &str, generation: Generation, kept: &Kept) -> bool {
        let other = kept.passwords.get(&generation.other()).map(|password| password.minted);
        let older = |(at, minted): (Timestamp, Timestamp)| minted.duration_since(at) >= CLOCKS;
        self.told(secret, generation).is_some()
            || self.told(secret, generation.other()).copied().flatten().zip(other).is_some_and(older)
    }

    /// That pods are told of a user, and when the oldest that is was made.
    fn told(&self, secret: &str, generation: Generation) -> Option<&Option<Timestamp>> {
        self.order.used.get(&(secret.to_owned(), generation.key()))
    }

    /// Aliases that are wanted are there. Others go when the secret is written next: a key may be somebody else's.
    fn aliased(&self, secret: &str, kept: &Kept) -> bool {
        self.aliases(secret, kept).iter().all(|(generation, uri)| kept.aliases.get(generation) == Some(uri))
    }

    /// Pods may be made anew of what is told of a user whose password is gone with a deleted secret: they get the current one.
    fn aliases(&self, secret: &str, kept: &Kept) -> BTreeMap<Generation, String> {
        let Some(current) = kept.current.and_then(|current| kept.passwords.get(&current)) else {
            return BTreeMap::new();
        };
        let lost = Generation::BOTH.into_iter().filter(|g| !kept.passwords.contains_key(g));
        let told = lost.filter(|g| self.told(secret, *g).is_some());
        told.map(|generation| (generation, current.uri.clone())).collect()
    }

    fn user(&self, role: Role, generation: Generation) -> String {
        user(&self.order.namespace, &self.order.name, &self.order.uid, role, generation)
    }

    fn place<'s>(&'s self, secret: &'s str) -> Place<'s> {
        let Order { namespace, labels, owner, .. } = self.order;
        Place { name: secret, namespace, labels, owner }
    }

    fn vhost(&self) -> Result<String, Problem> {
        let identity = self.hub.identity().map_err(|e| Problem::new(e.reason.as_str(), e.message))?;
        Ok(identity.vhost)
    }
}

/// Takes all users of an object away; those that are not there are gone.
///
/// # Errors
/// If the hub does not answer.
pub async fn remove(
    management: &Management,
    (namespace, name, uid): (&str, &str, &str),
    roles: &[Role],
    cause: &Cause,
) -> Result<(), Problem> {
    for role in roles {
        for generation in Generation::BOTH {
            let user = user(namespace, name, uid, *role, generation);
            let gone = management.delete(&user).await;
            if !matches!(gone, Ok(false)) {
                tell(cause, Verb::Delete, "user", &user, &gone);
            }
            gone?;
        }
    }
    Ok(())
}

/// The key of a secret that has the current user.
fn key(secret: String, kept: &Kept) -> Option<KeyRef> {
    let current = kept.current?;
    let password = kept.passwords.get(&current)?;
    Some(KeyRef { secret, key: current.key(), print: digest(password.uri.as_bytes(), PRINT) })
}

fn tell<T>(cause: &Cause, verb: Verb, resource: &str, name: &str, result: &Result<T, Problem>) {
    let outcome = result.as_ref().map_or_else(|p| Outcome::Failed(&p.reason), |_| Outcome::Done);
    cause.tell(&Effect::new(verb, resource, name), outcome);
}

fn password() -> Result<String, Problem> {
    let bytes: [u8; PASSWORD] = random()?;
    let digits = bytes.into_iter().flat_map(|b| [b >> 4, b & 15]);
    Ok(digits.filter_map(|n| char::from_digit(u32::from(n), 16)).collect())
}

/// From the generator of the TLS stack.
fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    let generator: &dyn SecureRandom = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    let filled = generator.fill(&mut bytes);
    filled.map_err(|_| Problem::new("NoRandomness", "the system gives no random numbers for a password"))?;
    Ok(bytes)
}
