#!/bin/sh
# What runs on a control-plane node: reads its files and its CRI, and changes static pods so that the node comes back
# well or comes back as it was, whatever becomes of those who asked. Plain POSIX sh for dash, busybox and bash.
#
#   inspect [-f] [PATH...]   what is here (-f: files only, for a directory that stands for a node)
#   begin ID WHO             stdin is a bundle (see bundle.py): check, back up, stage, start the watcher
#   watch ID TURN            the watcher: write, restart, wait, roll back; runs detached from its own copy of this file
#   follow ID N              journal lines after the first N, and whether the watcher lives
#   finish|undo ID WHO [AGREED]   an interrupted rollout: go on, or put back; stdin is a bundle with the script alone
#   original PART            what was there before the first change, for a revert
#   unlock                   remove a lock whose owner is dead
#
# What is trusted, and whose it must be for that, is in node_state.sh; what starts a pod again, and whether that works, in
# node_restart.sh. Both stand before this when it travels.
#
# Everything is below $ROOT ("" on a node). Answers are lines of tab-separated fields, free text as `text` has it, closed
# by END, so that a cut-off answer shows. Times that decide are differences of /proc/uptime: the clock may jump.
#
# What the shell can do by itself it does, and what a function finds is in a variable, not in its output: a node is looked
# at every few seconds, and each fork costs it a millisecond.
#
# What is not done is answered with one line, and nothing was touched:
#   refused WHY              it is not as it must be
#   nothing WHY              there is nothing to put back
#   asks TOPIC QUESTION      it cannot be found out here: begun again with that topic in `agreed`, it goes on
#   later SECONDS WHY        not now; in so many seconds, as far as can be told
set -u
umask 077
LC_ALL=C
export LC_ALL
PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin
export PATH
ROOT=${ROOT:-}
ROOT=${ROOT%/}
# physical, so that what leads out of it shows
if [ -n "$ROOT" ]; then ROOT=$(cd -P "$ROOT" 2>/dev/null && pwd -P) || exit 1; fi
export ROOT
# a folder that no service has as its own: root runs what lies here
STATE=$ROOT/var/lib/k8s-trace-tui-rollouts
# where it was once: the folder of the database, which may be a service user's
OLD=$ROOT/var/lib/k8s-trace-tui
LOCK=$STATE/lock
KUBERNETES=$ROOT/etc/kubernetes
MOST=1048576
TAB=$(printf '\t')
NEWLINE='
'
TOOLS='awk base64 cat chcon chmod chown cksum cmp cp crictl curl cut date df grep head id kubectl ln ls mkdir mv nohup
od readlink rm rmdir sed setsid sha256sum sleep sort ss stat sync systemctl systemd-run tail timeout tr uname wc wget'
NEEDED='awk base64 cat chmod chown cp cut date df grep head id ln mkdir mv readlink rm rmdir sed sha256sum sleep sort
stat sync tail timeout tr uname wc'
LAST=
WHY=
# SELF is who runs this: what carries it evaluates it in a subshell, whose own number $$ is not
{ read -r SELF self_rest </proc/self/stat; } 2>/dev/null || SELF=$$
# DONE is what is to be told of a rollout that came out well
DONE=

have() { command -v "$1" >/dev/null 2>&1; }

# limit SECONDS COMMAND...: no call to anything outside may hang the watcher
limit() {
	limit_seconds=$1
	shift
	timeout "$limit_seconds" "$@" </dev/null
}

# coded FILE: CODED are its bytes in base64, in one line
coded() {
	CODED=$(base64 <"$1")
	set -f
	IFS=$NEWLINE
	set -- $CODED
	IFS=
	CODED=$*
	unset IFS
	set +f
}

# text WORDS: TEXT is one field: - for nothing, what can be printed behind an apostrophe, all else in base64
text() {
	case $1 in
	'') TEXT=- ;;
	*[!\ -~]*) TEXT=$(printf '%s' "$1" | base64 | tr -d '\n') ;;
	*) TEXT="'$1" ;;
	esac
}

# answer WORD FIELD...: a line of the answer; a field behind a colon is free text
answer() {
	answer_line=$1
	shift
	for answer_field; do
		case $answer_field in
		:*)
			text "${answer_field#:}"
			answer_field=$TEXT
			;;
		esac
		answer_line=$answer_line$TAB$answer_field
	done
	printf '%s\n' "$answer_line"
}

# line FILE: LINE is its first line, "" where there is none
line() {
	LINE=
	{ IFS= read -r LINE <"$1"; } 2>/dev/null || :
}

# lines TEXT COMMAND WORDS...: run it for each line of a text that is not empty; LINE is the line
lines() {
	lines_text=$1
	shift
	set -f
	IFS=$NEWLINE
	for LINE in $lines_text; do "$@"; done
	unset IFS
	set +f
}

# holds FILE LINE: whether a file has exactly this line
holds() {
	{ while IFS= read -r holds_line; do
		[ "$holds_line" != "$2" ] || return 0
	done <"$1"; } 2>/dev/null
	return 1
}

# room SAID: ROOM are the free bytes of which `df -Pk` tells in its second line, 0 where it does not
room() {
	ROOM=0
	case $1 in *"$NEWLINE"*) ;; *) return 0 ;; esac
	read -r room_disk room_size room_used room_free room_rest <<LIST
${1#*"$NEWLINE"}
LIST
	case $room_free in '' | *[!0-9]*) ;; *) ROOM=$((room_free * 1024)) ;; esac
}

# myself: MY_UID is who runs this
myself() { MY_UID=${MY_UID:-$(id -u)}; }

# now: NOW is the time since the machine started, in 1/100 s
now() {
	if read -r now_up now_rest 2>/dev/null </proc/uptime; then
		now_up=${now_up%.*}${now_up#*.}
		NOW=${now_up#"${now_up%%[!0]*}"}
		NOW=${NOW:-0}
	else
		NOW=$(date +%s)00
	fi
}

# Tests run at another pace; a node does not. Nothing is looked at more than 20 times a second: looking takes time, too.
PACE=1000 TICK=1
if [ -n "${K8S_TRACE_TUI_PACE:-}" ]; then
	TICK=$(awk -v p="$K8S_TRACE_TUI_PACE" 'BEGIN { n = int(p * 1000); if (n < 1 || n > 1000) n = 1000; print n, (n < 50 ? 50 : n) / 1000 }')
	PACE=${TICK% *} TICK=${TICK#* }
fi

# span SECONDS: SPAN is that many seconds in 1/100 s at this pace
span() { SPAN=$(($1 * PACE / 10)); }

# stop_at STEP: tests kill the process here, as a power cut would
stop_at() {
	if [ "${K8S_TRACE_TUI_STOP_AT:-}" = "$1" ]; then kill -9 "$SELF"; fi
	return 0
}

# refuse WHY [WORD [VALUE]]: the only line of the answer, by the table above
refuse() {
	answer "${2:-refused}" ${3:+"$3"} ":$1"
	printf 'END\n'
	exit 3
}

# digest PATH: SHA is the sha256 of a file, - where there is none, ? where it cannot be read
digest() {
	if [ -L "$1" ] || [ -d "$1" ]; then
		SHA='?'
	elif [ -e "$1" ]; then
		SHA=$(sha256sum <"$1" 2>/dev/null)
		SHA=${SHA%% *}
		SHA=${SHA:-?}
	else
		SHA=-
	fi
}

# durable PATH: on the disk, not only in memory
durable() { limit 20 sync "$1" 2>/dev/null || limit 60 sync 2>/dev/null || :; }

# --- who lives -----------------------------------------------------------------------------------------------

boot() {
	BOOT=-
	if [ -r /proc/sys/kernel/random/boot_id ]; then read -r BOOT </proc/sys/kernel/random/boot_id; fi
}

# process FOLDER: what a process's folder in /proc tells. PROCESS is its state, "" where there is none; BORN is when it
# started, so that a number that was given again is not taken for its first owner.
process() {
	line "$1/stat"
	PROCESS= BORN=-
	case $LINE in *') '*) ;; *) return 0 ;; esac
	# nothing but letters and numbers, a field each
	set -- ${LINE##*) }
	PROCESS=${1:-}
	[ $# -lt 20 ] || BORN=${20}
}

# lives PID BORN BOOT: whether exactly this process still runs
lives() {
	case $1 in '' | *[!0-9]*) return 1 ;; esac
	boot
	[ "$3" = "$BOOT" ] || return 1
	# read once: it may be collected between two looks. One that was killed and not yet collected does nothing any more.
	process "/proc/$1"
	case $PROCESS in '' | Z* | X*) return 1 ;; esac
	[ "$2" = "$BORN" ]
}

# The lock is a symbolic link whose text names its owner: made, with its owner, in one step, or not at all.
# me WHO: ME is the text of a lock of this process
me() {
	boot
	process "/proc/$SELF"
	ME="pid=$SELF born=$BORN boot=$BOOT since=$(date +%s) id=$ID who=$1"
}

# owner: OWNER is the text of the lock, OWNER_ALIVE yes or no, OWNER_ID, OWNER_WHO
owner() {
	OWNER=$(readlink "$LOCK" 2>/dev/null) || OWNER=
	OWNER_ALIVE=no
	OWNER_WHO=${OWNER#*who=}
	OWNER_ID=${OWNER#* id=}
	OWNER_ID=${OWNER_ID%% *}
	owner_pid=${OWNER#*pid=}
	owner_born=${OWNER#*born=}
	owner_boot=${OWNER#*boot=}
	if [ -n "$OWNER" ] && lives "${owner_pid%% *}" "${owner_born%% *}" "${owner_boot%% *}"; then OWNER_ALIVE=yes; fi
}

# grab WHO: get the lock, over a dead owner if need be; refuses where somebody holds it
grab() {
	me "$1"
	grab_tries=0
	while [ "$grab_tries" -lt 5 ]; do
		grab_tries=$((grab_tries + 1))
		if ln -s "$ME" "$LOCK" 2>/dev/null; then return 0; fi
		owner
		[ "$OWNER_ALIVE" = no ] || break
		# gone since: somebody else takes it, or let it go
		[ -n "$OWNER" ] || continue
		grab_seen=$OWNER
		if [ "$(readlink "$LOCK")" = "$grab_seen" ] && mv -f "$LOCK" "$LOCK.dead.$SELF" 2>/dev/null; then
			grab_moved=$(readlink "$LOCK.dead.$SELF")
			rm -f "$LOCK.dead.$SELF"
			# somebody else was faster and it is theirs now: give it back
			if [ "$grab_moved" != "$grab_seen" ]; then ln -s "$grab_moved" "$LOCK" 2>/dev/null; fi
		fi
	done
	[ -n "$OWNER" ] || refuse "the lock on this node, $LOCK, is not to be had, and whose it is cannot be read: look, and try again"
	owner_pid=${OWNER#*pid=}
	refuse "another rollout holds the lock on this node, that of $OWNER_WHO (${OWNER_ID}, process ${owner_pid%% *}): wait for its end, which \`sampling status\` tells"
}

# keep WHO: the lock that begin took becomes the watcher's
keep() {
	me "$1"
	rm -f "$LOCK.$SELF"
	ln -s "$ME" "$LOCK.$SELF" && mv -f "$LOCK.$SELF" "$LOCK"
}

drop() {
	owner
	case $OWNER in *" id=$ID "*) rm -f "$LOCK" ;; esac
}

# --- the rollout's own directory -------------------------------------------------------------------------------

# open_rollout ID: D is its directory
open_rollout() {
	case $1 in '' | -* | *[!A-Za-z0-9-]*) refuse 'that is no name of a rollout' ;; esac
	ID=$1
	D=$STATE/rollouts/$ID
	JOURNAL=$D/journal
}

# meta KEY: META is what the bundle said for a key, "" for nothing; several values are a line each
meta() {
	META=
	{ while IFS= read -r meta_line; do
		case $meta_line in "$1$TAB"*) META="${META:+$META$NEWLINE}${meta_line#"$1$TAB"}" ;; esac
	done <"$D/meta"; } 2>/dev/null
	return 0
}

# journal STEP DETAIL: one line; the disk may be full, then the rollout goes on without it
journal() {
	journal_detail=${2:-}
	case $journal_detail in *[!\ -~]*) journal_detail=$(printf '%s' "$journal_detail" | tr '\n\t\r' '   ') ;; esac
	[ ${#journal_detail} -le 600 ] || journal_detail=$(printf '%s' "$journal_detail" | cut -c1-600)
	journal_line="$(date +%s) $1 $journal_detail"
	{ printf '%s\n' "$journal_line" >>"$JOURNAL"; } 2>/dev/null || mend
	stop_at "$1"
}

# mend: half a line goes, so that the next one stands alone
mend() {
	if [ -s "$JOURNAL" ] && [ "$(tail -c 1 "$JOURNAL" | wc -l)" -eq 0 ]; then
		{ sed '$d' "$JOURNAL" >"$JOURNAL.whole" && mv -f "$JOURNAL.whole" "$JOURNAL"; } 2>/dev/null
	fi
	return 0
}

# ended: of the journal's whole lines, STEP is the last step with its detail, ENDED the last word of a rollout, "" while
# there is none. Half of a line, as a crash leaves it, did not happen.
ended() {
	ENDED= STEP=
	{ while IFS= read -r ended_line; do
		case ${ended_line%% *} in '' | *[!0-9]*) continue ;; esac
		ended_step=${ended_line#* }
		case ${ended_step%% *} in '' | *[!a-z-]*) continue ;; esac
		STEP=$ended_step
		case "$ended_step " in 'end done '* | 'end rolled-back '* | 'end failed '*) ENDED=${ended_step#end } ;; esac
	done <"$JOURNAL"; } 2>/dev/null
	return 0
}

# watched: whether the watcher of this rollout lives
watched() {
	watched_pid= watched_born= watched_boot=
	read -r watched_pid watched_born watched_boot 2>/dev/null <"$D/pid" || return 1
	lives "$watched_pid" "$watched_born" "$watched_boot"
}

# --- CRI ---------------------------------------------------------------------------------------------------------

endpoint() {
	# set to nothing, as by a caller that hands it on, it is no endpoint to crictl, nor what its own file says
	[ -n "${CONTAINER_RUNTIME_ENDPOINT:-}" ] || unset CONTAINER_RUNTIME_ENDPOINT
	if [ -n "${CONTAINER_RUNTIME_ENDPOINT:-}" ] || [ -e /etc/crictl.yaml ]; then return 0; fi
	endpoint_found=
	if [ -e "$ROOT/var/lib/kubelet/config.yaml" ]; then
		endpoint_found=$(sed -n 's/^containerRuntimeEndpoint:[ "]*\([^" ]*\).*/\1/p' "$ROOT/var/lib/kubelet/config.yaml" 2>/dev/null)
	fi
	if [ -z "$endpoint_found" ] && [ -e "$ROOT/var/lib/kubelet/kubeadm-flags.env" ]; then
		endpoint_found=$(sed -n 's/.*--container-runtime-endpoint=\([^" ]*\).*/\1/p' "$ROOT/var/lib/kubelet/kubeadm-flags.env" 2>/dev/null)
	fi
	if [ -n "$endpoint_found" ]; then
		CONTAINER_RUNTIME_ENDPOINT=$endpoint_found
		export CONTAINER_RUNTIME_ENDPOINT
	fi
}

CONTROLLERS='kube-controller-manager|kube-scheduler'
FIELDS='{{.status.id}} {{.status.metadata.name}} {{.status.state}} {{.status.metadata.attempt}} {{.status.exitCode}} {{.status.startedAt}} {{.status.finishedAt}} {{index .status.labels "io.kubernetes.pod.uid"}} {{.status.logPath}}'

# containers NAMES [MOST]: FOUND are lines "id name state attempt exit started finished uid log" of containers by that
# name, or those names with a | between; fails when CRI does
containers() {
	FOUND=
	# not by `limit`, which is one fork more
	containers_ids=$(timeout 10 crictl ps -a --label io.kubernetes.pod.namespace=kube-system --name "^($1)\$" -q </dev/null 2>/dev/null) || return 1
	containers_count=0
	for containers_id in $containers_ids; do
		containers_count=$((containers_count + 1))
		[ "$containers_count" -le "${2:-16}" ] || break
		containers_line=$(timeout 10 crictl inspect --output go-template --template "$FIELDS" "$containers_id" </dev/null 2>/dev/null)
		containers_line=${containers_line%%"$NEWLINE"*}
		containers_state=${containers_line#*CONTAINER_}
		[ "$containers_state" = "$containers_line" ] || containers_line=${containers_line%%CONTAINER_*}$containers_state
		while :; do
			case $containers_line in
			*'<no value>'*) containers_line=${containers_line%%'<no value>'*}-${containers_line#*'<no value>'} ;;
			*) break ;;
			esac
		done
		# it may be gone between the two questions
		containers_name=${containers_line#"$containers_id "}
		case "|$1|" in *"|${containers_name%% *}|"*) FOUND=$FOUND$containers_line$NEWLINE ;; esac
	done
	return 0
}

# only NAME FOUND: FOUND are those of one name
only() {
	FOUND=
	while IFS= read -r only_line; do
		only_name=${only_line#* }
		[ "${only_name%% *}" != "$1" ] || FOUND=$FOUND$only_line$NEWLINE
	done <<LIST
$2
LIST
}

# known: KNOWN are the containers that were here before, a line each
known() {
	KNOWN=$NEWLINE
	{ while read -r known_id; do KNOWN=$KNOWN$known_id$NEWLINE; done <"$D/known"; } 2>/dev/null
	return 0
}

# remember FILE: those of FOUND are known from now on, and the running ones stand in a file of $D, with their pods
remember() {
	: >"$D/known"
	: >"$D/$1"
	while read -r remember_id remember_name remember_state remember_attempt remember_exit remember_started remember_finished remember_uid remember_log; do
		[ -n "$remember_id" ] || continue
		printf '%s\n' "$remember_id" >>"$D/known"
		[ "$remember_state" != RUNNING ] || printf '%s %s\n' "$remember_id" "$remember_uid" >>"$D/$1"
	done <<LIST
$FOUND
LIST
	known
}

# look: what CRI says of the rollout's container. RUNNING is the number of running ones, then RUN_ID, RUN_UID,
# RUN_ATTEMPT, RUN_STARTED of the last of them that is not known from before (or of any); OLD_STATE of the old one.
look() {
	RUNNING=0 RUN_ID= RUN_UID= RUN_STARTED= OLD_STATE=GONE FRESH=no
	if ! containers "$CONTAINER"; then
		OLD_STATE=UNKNOWN
		return 1
	fi
	while read -r look_id look_name look_state look_attempt look_exit look_started look_finished look_uid look_log; do
		[ -n "$look_id" ] || continue
		if [ "$look_id" = "$OLD_ID" ]; then OLD_STATE=$look_state; fi
		look_known=no
		case $KNOWN in *"$NEWLINE$look_id$NEWLINE"*) look_known=yes ;; esac
		if [ "$look_state" = RUNNING ]; then
			RUNNING=$((RUNNING + 1))
			if [ "$FRESH" = no ]; then
				RUN_ID=$look_id RUN_UID=$look_uid RUN_STARTED=$look_started
				if [ "$look_known" = no ]; then FRESH=yes; fi
			fi
		elif [ "$look_known" = no ] && [ "$look_state" = EXITED ] && [ "$look_exit" != 0 ] &&
			{ [ "$TRIGGER" != manifest ] || { [ "$look_uid" != "$OLD_UID" ] && [ "$look_uid" != "$SPENT" ]; }; }; then
			failed "$look_id" "$look_exit" "$look_log"
		fi
	done <<LIST
$FOUND
LIST
	return 0
}

# failed ID EXIT LOG: a new container ended badly. Its log vanishes with its pod, so it is kept; CRASHES counts.
failed() {
	case " $CRASHED " in *" $1 "*) return 0 ;; esac
	CRASHED="$CRASHED $1"
	failed_line=
	if inside "$3" && [ -r "$ROOT$3" ]; then
		# kubelet may take it away meanwhile: never an empty one over one that tells something
		tail -c 65536 "$ROOT$3" >"$D/log.new" 2>/dev/null
		if [ -s "$D/log.new" ]; then mv -f "$D/log.new" "$D/last.log"; else rm -f "$D/log.new"; fi
		failed_line=$(tail -n 40 "$D/last.log" 2>/dev/null | grep '"command failed" err=' | tail -n 1 | sed 's/.*"command failed" err=//')
	fi
	# the old server may hold the port for a moment: that is not the new one's fault
	case $failed_line in *'address already in use'*) return 0 ;; esac
	CRASHES=$((CRASHES + 1))
	CRASH="exit $2${failed_line:+: $failed_line}"
	case $failed_line in *[Tt]rac*) CRASHES=$((CRASHES + 9)) ;; esac
}

# --- health ---------------------------------------------------------------------------------------------------------

# get URL: CODE is the HTTP status, 000 for no answer
get() {
	get_url=$1
	CODE=000
	case $MEANS in
	curl)
		# -q: no .curlrc of root's, which may follow redirects, with the certificate
		set -- -q -s -o /dev/null -w '%{http_code}' --noproxy '*' --max-time 3
		if [ -r "$KUBERNETES/pki/apiserver-kubelet-client.crt" ]; then
			set -- "$@" --cert "$KUBERNETES/pki/apiserver-kubelet-client.crt" --key "$KUBERNETES/pki/apiserver-kubelet-client.key"
		fi
		if [ -r "$KUBERNETES/pki/ca.crt" ]; then get_ca="--cacert $KUBERNETES/pki/ca.crt"; else get_ca=-k; fi
		if [ "$get_ca" = -k ]; then
			CODE=$(limit 5 curl "$@" -k "$get_url" 2>/dev/null)
		else
			CODE=$(limit 5 curl "$@" --cacert "$KUBERNETES/pki/ca.crt" "$get_url" 2>/dev/null)
			# a serving certificate of another authority; kubelet's own probes do not check it either
			if [ $? -eq 60 ]; then CODE=$(limit 5 curl "$@" -k "$get_url" 2>/dev/null); fi
		fi
		;;
	admin | super-admin)
		get_path=${get_url#*://}
		get_host=${get_url%%://*}://${get_path%%/*}
		case $get_path in */*) get_path=/${get_path#*/} ;; *) get_path=/ ;; esac
		if get_said=$(limit 6 kubectl --kubeconfig "$KUBERNETES/$MEANS.conf" --server "$get_host" --request-timeout=3s get --raw "$get_path" 2>&1 >/dev/null); then
			CODE=200
		else
			case $get_said in
			*Unauthorized* | *'must be logged in'*) CODE=401 ;;
			*orbidden*) CODE=403 ;;
			esac
		fi
		;;
	wget | wget-anonymous)
		set -- -q -T 3 -O /dev/null --no-check-certificate
		if [ "$MEANS" = wget ]; then
			set -- "$@" -t 1 --max-redirect=0 --certificate="$KUBERNETES/pki/apiserver-kubelet-client.crt" --private-key="$KUBERNETES/pki/apiserver-kubelet-client.key"
		elif [ "$get_url" = "$READ" ]; then
			CODE=200 # without a certificate nothing can be read; the journal says so
			return 0
		fi
		if get_said=$(limit 6 wget -S "$@" "$get_url" 2>&1 >/dev/null); then
			CODE=200
		else
			CODE=$(printf '%s\n' "$get_said" | sed -n 's|.*HTTP/[0-9.]* \([1-5][0-9][0-9]\).*|\1|p' | tail -n 1)
		fi
		;;
	esac
	CODE=${CODE:-000}
}

# well: every health address says 200, and so does a read that etcd has to answer. LAST says what did not.
well() {
	LAST=
	for well_url in $HEALTH $READ; do
		get "$well_url"
		if [ "$CODE" != 200 ]; then
			LAST="$well_url answers $CODE"
			[ "$CODE" != 000 ] || LAST="$well_url does not answer"
			return 1
		fi
	done
	return 0
}

# means: MEANS is the first way of asking that finds everything well
means() {
	means_first= means_turned=yes means_why=
	for MEANS in curl admin super-admin wget wget-anonymous; do
		case $MEANS in
		curl) have curl || continue ;;
		admin | super-admin) { have kubectl && [ -r "$KUBERNETES/$MEANS.conf" ]; } || continue ;;
		wget) { [ -r "$KUBERNETES/pki/apiserver-kubelet-client.crt" ] && wget --version >/dev/null 2>&1; } || continue ;;
		# it tries no read, so it must not stand in for one that hangs
		wget-anonymous) { [ "$means_turned" = yes ] && have wget; } || continue ;;
		esac
		if [ -z "$means_first" ]; then means_first=$MEANS; fi
		if well; then return 0; fi
		means_why=${means_why:-$LAST}
		# another way of asking helps only where this one was turned away
		case $LAST in
		*' answers 401' | *' answers 403') ;;
		*'does not answer') means_turned=no ;;
		*)
			means_turned=no
			break
			;;
		esac
	done
	MEANS=${means_first:-none}
	LAST=${means_why:-neither curl nor kubectl nor wget is here}
	LAST="the control plane is not well: $LAST"
	# one without anonymous requests lives and turns us away
	if [ -n "$means_why" ] && [ "$means_turned" = yes ]; then
		LAST="the API server turns away all that this node can ask with ($means_why): it needs /etc/kubernetes/pki/apiserver-kubelet-client.crt or /etc/kubernetes/admin.conf"
	fi
	return 1
}

# --- etcd's members -----------------------------------------------------------------------------------------------

# etcd_flag NAME: VALUE is the first value of one of etcd's flags, "" where the manifest does not say
etcd_flag() {
	VALUE=$(awk -v name="--$1=" '/^[ \t]*#/ { next }
		at = index($0, name) {
			value = substr($0, at + length(name))
			sub(/[], \t\r"\047].*/, "", value)
			print value
			exit
		}' "$ROOT$MANIFEST" 2>/dev/null)
}

# etcdctl_says CERT KEY WORDS...: run etcdctl where it is: in the container, with the certificates that lie there.
# Not by --sync: that keeps the output to itself when etcdctl ends with an error.
etcdctl_says() {
	etcdctl_cert=$1 etcdctl_key=$2
	shift 2
	if [ -n "$etcdctl_cert" ]; then set -- --cert="$etcdctl_cert" --key="$etcdctl_key" "$@"; fi
	if [ -n "$members_ca" ]; then set -- --cacert="$members_ca" "$@"; fi
	limit 20 crictl exec "$members_id" etcdctl --endpoints="$members_url" --command-timeout=5s "$@" 2>&1
}

# members: MEMBERS is `healthy` (all of them, COUNT), `unwell`, or `unknown`; WHO says which member and why, or why
# nobody knows. OTHERS is no where only this node's own member is unwell.
members() {
	MEMBERS=unknown COUNT=0 OTHERS=yes
	if ! containers etcd; then
		WHO='CRI does not answer'
		return 0
	fi
	members_id=$(printf '%s' "$FOUND" | awk '$3 == "RUNNING" { id = $1 } END { print id }')
	if [ -z "$members_id" ]; then
		WHO='etcd does not run here'
		return 0
	fi
	etcd_flag name
	members_own=${VALUE:-default}
	etcd_flag listen-client-urls
	members_url=$(printf '%s' "${VALUE:-http://127.0.0.1:2379}" | sed 's|//0\.0\.0\.0:|//127.0.0.1:|; s|//\[::\]:|//[::1]:|')
	etcd_flag trusted-ca-file
	members_ca=$VALUE
	etcd_flag key-file
	members_key=$VALUE
	etcd_flag cert-file
	members_cert=$VALUE
	# kubeadm's serving certificate is one for clients too; a certificate of its own for such questions lies beside it
	members_said=$(etcdctl_says "$members_cert" "$members_key" member list)
	case $members_said in
	*', started, '* | '') ;;
	*)
		if [ -n "$members_cert" ]; then
			members_cert=${members_cert%/*}/healthcheck-client.crt
			members_key=${members_cert%.crt}.key
			members_other=$(etcdctl_says "$members_cert" "$members_key" member list)
			case $members_other in *', started, '*) members_said=$members_other ;; esac
		fi
		;;
	esac
	members_list=$(printf '%s\n' "$members_said" | grep -E '^[0-9a-f]+, [a-z]+, ')
	if [ -z "$members_list" ]; then
		WHO=$(printf '%s\n' "$members_said" | tail -n 1 | cut -c1-200)
		WHO="etcdctl in its container says: ${WHO:-nothing}"
		return 0
	fi
	members_health=$(etcdctl_says "$members_cert" "$members_key" endpoint health --cluster | grep -E '^[^ ]+ is (un)?healthy')
	if [ -z "$members_health" ]; then
		WHO='etcdctl in its container says nothing about their health'
		return 0
	fi
	COUNT=$(printf '%s\n' "$members_list" | wc -l)
	COUNT=$((COUNT))
	members_unwell=$(printf '%s\n%s\n' "$members_list" "$members_health" | awk '
		$2 == "is" && $3 == "healthy:" { good[$1] = 1; next }
		$2 == "is" && $3 == "unhealthy:" { reason = $0; sub(/^[^ ]+ is unhealthy: /, "", reason); bad[$1] = reason; next }
		{ split($0, f, ", "); n++; state[n] = f[2]; name[n] = f[3]; peer[n] = f[4]; urls[n] = f[5]; learner[n] = f[6] }
		END {
			for (i = 1; i <= n; i++) {
				why = "it does not answer"; ok = 0
				count = split(urls[i], url, ",")
				for (j = 1; j <= count; j++) { if (url[j] in good) ok = 1; else if (url[j] in bad) why = bad[url[j]] }
				if (state[i] != "started") { ok = 0; why = "it has not started" }
				if (learner[i] == "true") { ok = 0; why = "it still learns" }
				if (!ok) print (name[i] != "" ? name[i] : "-") "\t" (urls[i] != "" ? urls[i] : peer[i]) "\t" substr(why, 1, 120)
			}
		}')
	if [ -z "$members_unwell" ]; then
		MEMBERS=healthy WHO=
		return 0
	fi
	MEMBERS=unwell
	WHO=$(printf '%s\n' "$members_unwell" | awk -F "$TAB" '{ printf "%s%s at %s (%s)", (NR > 1 ? ", " : ""), $1, $2, $3 }')
	if [ "$(printf '%s\n' "$members_unwell" | cut -f1)" = "$members_own" ]; then OTHERS=no; fi
}

# spare WORD: whether, by what `members` found, etcd can be without this member for a while. WORD is `decline` or
# `release`: what is done where it cannot.
spare() {
	case $MEMBERS in
	healthy) return 0 ;;
	unwell)
		# its own being unwell is what a way back is for, and restarting that one takes nothing from the others
		if [ "$OTHERS" = no ] && [ "$UNWELL" = allowed ]; then return 0; fi
		$1 "etcd's member $WHO is not well: etcd is changed only while all its members are, one at a time"
		;;
	esac
	if [ "$UNWELL" = allowed ] && [ "$WHO" = 'etcd does not run here' ]; then return 0; fi
	case " $AGREED " in
	*' members '*) journal note "nobody knows whether the other members of etcd are healthy ($WHO); the operator went on" ;;
	*) $1 "it cannot be found out whether the other members of etcd are healthy ($WHO), and without this one it may lose its quorum" asks members ;;
	esac
}

# members_back: etcd is whole again before anybody goes on to its next member; if not, that is told, no more
members_back() {
	[ "$CONTAINER" = etcd ] || return 0
	meta agreed
	case " $META " in *' members '*) return 0 ;; esac
	now
	span $((60 * PATIENCE))
	members_limit=$((NOW + SPAN))
	while :; do
		members
		if [ "$MEMBERS" = healthy ]; then
			journal members "all of them are healthy ($COUNT)"
			return 0
		fi
		now
		if [ "$NOW" -ge "$members_limit" ]; then
			journal note "not every member of etcd is known to be healthy: $WHO"
			return 0
		fi
		sleep "$TICK"
	done
}

# --- back-off -----------------------------------------------------------------------------------------------------

# ago TIME: AGO is how many seconds ago an RFC 3339 time was, by the clock, at this pace; 0 for one that is to come
ago() {
	AGO=$(printf '%s\n' "$1" | awk -v now="$(date +%s)" -v pace="$PACE" '
		/^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]/ {
			year = substr($0, 1, 4) + 0; month = substr($0, 6, 2) + 0; day = substr($0, 9, 2) + 0
			if (month <= 2) { year--; month += 12 }
			days = 365 * year + int(year / 4) - int(year / 100) + int(year / 400) + int((153 * (month - 3) + 2) / 5) + day - 719469
			then = days * 86400 + substr($0, 12, 2) * 3600 + substr($0, 15, 2) * 60 + substr($0, 18, 2)
			if (match($0, /[+-][0-9][0-9]:[0-9][0-9]$/)) {
				offset = substr($0, RSTART + 1, 2) * 3600 + substr($0, RSTART + 4, 2) * 60
				then += substr($0, RSTART, 1) == "+" ? -offset : offset
			}
			ago = (now - then) * 1000 / pace
			if (ago < 0) ago = 0
			if (ago > 2000000000) ago = 2000000000
			printf "%.0f\n", ago
		}')
	AGO=${AGO:-0}
}

# toggles: TOGGLES is how often the API server or etcd was restarted from here in the last 10 minutes: so often the
# controllers may have lost their lease
toggles() {
	TOGGLES=$(cat "$STATE"/rollouts/*/journal 2>/dev/null | awk -v now="$(date +%s)" -v window=$((600 * PACE / 1000)) '
		/^[0-9]+ restart( |$)/ && $1 + 0 <= now && $1 + 0 >= now - window { n++ } END { print n + 0 }')
}

# backing_off: in LEAST to LEFT seconds a controller of FOUND, none of which runs, is started again, and LATER says it in
# words: by what kubelet says that it waits; else by how often it was restarted: kubelet waits 10, 20, 40, 80, 160, 300 s,
# and forgets after 10 minutes without a restart, so that old ones count in the attempt alone
backing_off() {
	backing_line=$(printf '%s' "$FOUND" | sort -t' ' -k4,4n | tail -n 1)
	backing_attempt=$(printf '%s' "$backing_line" | cut -d' ' -f4)
	case $backing_attempt in '' | *[!0-9]*) backing_attempt=0 ;; esac
	ago "$(printf '%s' "$backing_line" | cut -d' ' -f7)"
	kubelet_says "$(printf '%s' "$backing_line" | cut -d' ' -f2)" "$AGO"
	if [ -n "$WAITS" ]; then
		LEAST=$WAITS LEFT=$WAITS
	else
		toggles
		back_off_after "$backing_attempt"
		LEFT=$WAITS
		if [ "$TOGGLES" -lt "$backing_attempt" ]; then backing_attempt=$TOGGLES; fi
		back_off_after "$backing_attempt"
		LEAST=$WAITS
	fi
	LEAST=$((LEAST - AGO)) LEFT=$((LEFT - AGO))
	# kubelet looks at it again some seconds after the end
	[ "$LEFT" -ge 15 ] || LEFT=15
	[ "$LEAST" -ge 1 ] || LEAST=1
	LATER="about $LEFT s"
	if [ "$LEAST" -lt "$((LEFT - 15))" ]; then LATER="$LEAST to $LEFT s"; fi
}

# back_off_after RESTARTS: WAITS is for how long kubelet waits after so many, at least as long as it has since AGO
back_off_after() {
	WAITS=10
	back_off_times=$1
	while [ "$back_off_times" -gt 1 ] && [ "$WAITS" -lt 300 ]; do
		WAITS=$((WAITS * 2))
		back_off_times=$((back_off_times - 1))
	done
	while [ "$((WAITS + 20))" -le "$AGO" ] && [ "$WAITS" -lt 300 ]; do WAITS=$((WAITS * 2)); done
	[ "$WAITS" -le 300 ] || WAITS=300
}

# --- files ------------------------------------------------------------------------------------------------------------

# beside PATH: BESIDE is the directory where a copy waits for its rename: on the same file system, and never in the
# manifests directory under a name that kubelet reads
beside() {
	BESIDE=${1%/*}
	while [ ! -d "$ROOT$BESIDE" ] && [ -n "$BESIDE" ]; do BESIDE=${BESIDE%/*}; done
	if [ -n "$MANIFEST" ] && [ "$BESIDE" = "${MANIFEST%/*}" ]; then
		# found out once: nobody mounts anything there meanwhile
		if [ -z "${BESIDE_MANIFEST:-}" ]; then
			BESIDE_MANIFEST=$BESIDE beside_parent=${BESIDE%/*}
			beside_disks=$(stat -c %d "$ROOT$BESIDE" "$ROOT$beside_parent/" 2>/dev/null)
			if [ "${beside_disks%%"$NEWLINE"*}" = "${beside_disks#*"$NEWLINE"}" ] &&
				! awk -v d="$ROOT$BESIDE" '$5 == d { found = 1 } END { exit !found }' /proc/self/mountinfo 2>/dev/null; then
				BESIDE_MANIFEST=$beside_parent
			fi
		fi
		BESIDE=$BESIDE_MANIFEST
	fi
	BESIDE=$ROOT$BESIDE
}

# stage N PATH before|after SHA MODE UID GID LABEL: a finished copy waits beside the target, so that the way there and
# the way back are one rename each, also on a full disk. Where that fails, STAGE_SAID is why, if cp says it.
stage() {
	beside "$2"
	STAGED=$BESIDE/.k8s-trace-tui-$ID-$1-$3
	# by the sha256 of what was kept, never by what lies there now
	digest "$STAGED"
	if [ "$SHA" = "$4" ]; then return 0; fi
	[ "$SHA" = - ] || rm -f "$STAGED"
	STAGE_SAID= stage_keep=
	if [ "$3" = before ]; then stage_keep=-p; fi
	if ! stage_said=$(cp $stage_keep "$D/$3/$1" "$STAGED" 2>&1); then
		STAGE_SAID=${stage_said##*: }
		return 1
	fi
	if [ "$3" = after ]; then
		# a name in a directory where only root writes (see ours_to_write): it is the file that was just made
		chmod "$5" "$STAGED" || return 1
		if [ "$(stat -c '%u %g' "$STAGED")" != "$6 $7" ]; then chown "$6:$7" "$STAGED" || return 1; fi
	fi
	if [ "$8" != - ] && have chcon; then chcon "$8" "$STAGED" 2>/dev/null || :; fi
	digest "$STAGED"
	if [ "$SHA" != "$4" ]; then
		rm -f "$STAGED"
		return 1
	fi
	durable "$STAGED"
}

# kept N PATH before|after SHA: whether what is to be put there is still as it was kept, here or beside its place
kept() {
	beside "$2"
	digest "$BESIDE/.k8s-trace-tui-$ID-$1-$3"
	[ "$SHA" != "$4" ] || return 0
	digest "$D/$3/$1"
	[ "$SHA" = "$4" ]
}

# make_directory PATH: the directory of a file, noted so that it can go again
make_directory() {
	made=${1%/*}
	made_list=
	while [ -n "$made" ] && [ ! -d "$ROOT$made" ]; do
		made_list="$made
$made_list"
		made=${made%/*}
	done
	while read -r made; do
		[ -n "$made" ] || continue
		printf '%s\n' "$made" >>"$D/made"
		mkdir "$ROOT$made" || return 1
		chmod 755 "$ROOT$made"
	done <<LIST
$made_list
LIST
	return 0
}

# place N PATH before|after SHA MODE UID GID LABEL: bring the copy into its place and look whether it is there
place() {
	if [ -d "$ROOT$2" ]; then return 1; fi
	stage "$@" || return 1
	make_directory "$2" || return 1
	mv -f "$STAGED" "$ROOT$2" 2>/dev/null || return 1
	durable "$ROOT${2%/*}"
	digest "$ROOT$2"
	[ "$SHA" = "$4" ]
}

# clean: nothing of ours stays but what was asked for
clean() {
	while IFS="$TAB" read -r clean_n clean_path clean_rest <&3; do
		# of a rollout that never came as far as its checks, half a line may be here
		case $clean_n in '' | *[!0-9]*) continue ;; esac
		{ plain_path "$clean_path" && inside "${clean_path%/*}"; } || continue
		beside "$clean_path"
		rm -f "$BESIDE/.k8s-trace-tui-$ID-$clean_n-before" "$BESIDE/.k8s-trace-tui-$ID-$clean_n-after" \
			"$ROOT${clean_path%/*}/.k8s-trace-tui-$ID-$clean_n-before" "$ROOT${clean_path%/*}/.k8s-trace-tui-$ID-$clean_n-after"
		# the directory that this or an earlier change made for its file
		case $clean_path in */k8s-trace-tui/*) rmdir "$ROOT${clean_path%/*}" 2>/dev/null || : ;; esac
	done 3<"$D/files"
	# a copy may have waited further up, before the directory of its file was there
	while read -r clean_made <&3; do
		{ plain_path "$clean_made" && inside "$clean_made"; } || continue
		rm -f "$ROOT${clean_made%/*}/.k8s-trace-tui-$ID-"* 2>/dev/null
	done 3<"$D/made"
	return 0
}

# remove_made: directories that were made for this rollout and are empty
remove_made() {
	sort -r "$D/made" 2>/dev/null >"$D/made.down"
	while read -r remove_path <&3; do
		rmdir "$ROOT$remove_path" 2>/dev/null || :
	done 3<"$D/made.down"
}

# key PATH: KEY names a path in original/
key() {
	KEY=$(printf '%s' "$1" | sha256sum)
	KEY=${KEY%"${KEY#????????????????????????????????}"}
}

# settle done|rolled-back: what a later revert goes back to
settle() {
	settle_home=$STATE/original/$PART
	meta revert
	if [ "$1" = done ] && [ "$META" = yes ]; then
		rm -rf "$settle_home"
		return 0
	fi
	while IFS="$TAB" read -r settle_n settle_path settle_before settle_after settle_rest <&3; do
		key "$settle_path"
		if [ "$1" = done ]; then
			printf '%s\n' "$settle_after" >"$settle_home/$KEY/last"
		else
			line "$settle_home/$KEY/owner"
			if [ "$LINE" = "$ID" ]; then rm -rf "${settle_home:?}/$KEY"; fi
		fi
	done 3<"$D/files"
	if [ "$1" = done ]; then cp "$D/meta" "$settle_home/meta" 2>/dev/null; fi
	return 0
}

# finish_with WORD DETAIL: the last line, then the lock goes
finish_with() {
	clean
	case $1 in done | rolled-back) settle "$1" ;; esac
	journal end "$1 $2"
	durable "$JOURNAL"
	drop
}

# --- the watcher ----------------------------------------------------------------------------------------------------

# load: what a rollout is about
load() {
	meta part
	PART=$META
	case $PART in '' | *[!a-z]*) PART=none ;; esac
	meta trigger
	TRIGGER=$META
	meta manifest
	MANIFEST=$META
	meta container
	CONTAINER=$META
	meta grace
	GRACE=$META
	meta patience
	PATIENCE=$META
	case $GRACE in '' | *[!0-9]*) GRACE=30 ;; esac
	case $PATIENCE in '' | *[!0-9]*) PATIENCE=1 ;; esac
	meta health
	HEALTH=$META
	meta read
	READ=$META
	line "$D/means"
	MEANS=$LINE
	known
	OLD_ID=- OLD_UID=-
	if [ -s "$D/old" ]; then read -r OLD_ID OLD_UID <"$D/old"; fi
	line "$D/spent"
	SPENT=$LINE
	CRASHES=0 CRASHED= CRASH=
	# etcd's restart stalls in kubelet until a call to the API that needs etcd gives up: 41 s from its end to its start
	if [ "$CONTAINER" = etcd ]; then START_IN=60 READY_IN=60; else START_IN=20 READY_IN=30; fi
	if [ "$TRIGGER" = stop ]; then START_IN=$((START_IN + 25)); fi
	START_IN=$((START_IN * PATIENCE)) READY_IN=$((READY_IN * PATIENCE))
}

# write: every file that is to be there, in the plan's order. Somebody else's bytes are never written over.
write_files() {
	WROTE=no
	while IFS="$TAB" read -r n path before after mode uid gid label <&3; do
		digest "$ROOT$path"
		if [ "$after" = - ] || [ "$SHA" = "$after" ]; then continue; fi
		if [ "$SHA" != "$before" ]; then
			WHY="$path was changed by somebody else meanwhile"
			return 1
		fi
		stop_at "before-$n"
		if ! place "$n" "$path" after "$after" "$mode" "$uid" "$gid" "$label"; then
			WHY="$path could not be written"
			return 1
		fi
		WROTE=yes
		journal write "$path"
		stop_at "write-$n"
	done 3<"$D/files"
	return 0
}

# remove_files COLUMN: files that are not to be there, after nothing reads them any more
remove_files() {
	while IFS="$TAB" read -r n path before after mode uid gid label <&3; do
		digest "$ROOT$path"
		if [ "$1" = after ]; then remove_want=$after remove_have=$before; else remove_want=$before remove_have=$after; fi
		if [ "$remove_want" = - ] && [ "$SHA" != - ] && [ "$SHA" = "$remove_have" ]; then
			rm -f "$ROOT$path"
			durable "$ROOT${path%/*}"
			journal remove "$path"
		fi
	done 3<"$D/files"
	return 0
}

# crashed: whether what is new cannot live: twice ended badly, or once for a reason that names tracing
crashed() {
	[ "$CRASHES" -ge 2 ] || return 1
	WHY="the new $CONTAINER does not stay up ($CRASH)"
	return 0
}

# forward: from the files as they were to the new ones running well. Each step looks first whether it is done already.
forward() {
	write_files || return 1
	stop_at written
	if [ "$TRIGGER" = nothing ]; then
		remove_files after
		return 0
	fi
	if [ "$TRIGGER" = watch ]; then
		stays || return 1
		remove_files after
		return 0
	fi
	now
	forward_begin=$NOW
	if [ "$TRIGGER" = stop ]; then
		# whatever runs now has read the old file, also if the machine was restarted since this rollout began
		if [ "$WROTE" = yes ] && containers "$CONTAINER"; then
			remember old.new
			if [ -s "$D/old.new" ]; then
				mv -f "$D/old.new" "$D/old"
				read -r OLD_ID OLD_UID <"$D/old"
			fi
		fi
		look
		if [ "$OLD_STATE" = RUNNING ]; then
			journal restart "stopping $CONTAINER by CRI"
			limit 40 crictl stop -t 2 "$OLD_ID" >/dev/null 2>&1 || {
				look
				if [ "$OLD_STATE" = RUNNING ]; then
					WHY="CRI does not stop $CONTAINER"
					return 1
				fi
			}
		fi
	else
		journal restart 'kubelet has another manifest'
	fi
	# the old one: its port is closed at once, it ends within its grace period
	span $((GRACE + 5))
	forward_late=$((forward_begin + SPAN)) forward_said=no
	span $((GRACE + 30 + 60 * PATIENCE))
	forward_limit=$((forward_begin + SPAN))
	while :; do
		look
		case $OLD_STATE in EXITED | GONE) break ;; esac
		crashed && return 1
		now
		if [ "$NOW" -ge "$forward_late" ] && [ "$forward_said" = no ]; then
			forward_said=yes
			journal note "the old $CONTAINER is still there after its grace period"
		fi
		if [ "$NOW" -ge "$forward_limit" ]; then
			blame
			WHY="the old $CONTAINER does not end: kubelet did not act on it${BLAME:+ ($BLAME)}"
			return 1
		fi
		attend
		sleep "$TICK"
	done
	journal gone "the old $CONTAINER has ended"
	# what was down before is started at the end of its back-off, unless its pod is another one
	if [ "$TRIGGER" = stop ] && [ "$OLD_ID" = - ] && [ "$START_IN" -lt 330 ]; then START_IN=330; fi
	now
	span "$START_IN"
	forward_limit=$((NOW + SPAN))
	while :; do
		look
		if [ "$FRESH" = yes ] && { [ "$TRIGGER" = stop ] || [ "$RUN_UID" != "$OLD_UID" ]; }; then break; fi
		crashed && return 1
		now
		if [ "$NOW" -ge "$forward_limit" ]; then
			blame
			WHY="no new $CONTAINER was started within $START_IN s${BLAME:+ ($BLAME)}"
			[ -z "$CRASH" ] || WHY="the new $CONTAINER does not stay up ($CRASH)"
			return 1
		fi
		attend
		sleep "$TICK"
	done
	journal started "$RUN_STARTED"
	now
	span "$READY_IN"
	forward_limit=$((NOW + SPAN)) forward_good=
	while :; do
		look
		crashed && return 1
		if [ "$FRESH" = yes ] && [ "$RUNNING" -eq 1 ] && well; then
			# the same container twice, a second apart
			if [ "$forward_good" = "$RUN_ID" ]; then break; fi
			forward_good=$RUN_ID
		else
			forward_good=
		fi
		now
		if [ "$NOW" -ge "$forward_limit" ]; then
			WHY="the new $CONTAINER was not ready within $READY_IN s (${LAST:-it does not run}${CRASH:+, $CRASH})"
			return 1
		fi
		sleep "$TICK"
	done
	journal ready "$RUN_STARTED"
	remove_files after
	members_back
	controllers_back
	return 0
}

# stays: the pod is, and reads, what it was and did, so nothing restarts; would kubelet see that otherwise, it is waited
# for all the same
stays() {
	now
	span $((GRACE + START_IN + READY_IN))
	stays_limit=$((NOW + SPAN)) stays_good=
	while :; do
		look
		crashed && return 1
		if [ "$RUNNING" -eq 1 ] && well; then
			# the same container twice, a second apart
			if [ "$stays_good" = "$RUN_ID" ]; then break; fi
			stays_good=$RUN_ID
		else
			stays_good=
		fi
		now
		if [ "$NOW" -ge "$stays_limit" ]; then
			WHY="$CONTAINER is not well (${LAST:-it does not run}${CRASH:+, $CRASH})"
			return 1
		fi
		sleep "$TICK"
	done
	if [ "$RUN_ID" = "$OLD_ID" ]; then
		DONE='nothing had to restart: what is read in these files stays the same'
	else
		DONE='kubelet restarted it, though nothing that is read in these files changed'
		journal started "$RUN_STARTED"
	fi
	journal ready "$RUN_STARTED"
	return 0
}

# controllers_back: they lose their lease when the API is away, and restart; late ones are told, no more
controllers_back() {
	now
	span 60
	controllers_limit=$((NOW + SPAN))
	while :; do
		controllers_missing= controllers_left=0 controllers_later=
		containers "$CONTROLLERS" 32 || FOUND=
		controllers_found=$FOUND
		for controller in kube-controller-manager kube-scheduler; do
			[ "$controller" != "$CONTAINER" ] || continue
			only "$controller" "$controllers_found"
			case $FOUND in
			'' | *" RUNNING "*) ;;
			*)
				controllers_missing="$controllers_missing $controller"
				backing_off
				if [ "$LEFT" -gt "$controllers_left" ]; then controllers_left=$LEFT controllers_later=$LATER; fi
				;;
			esac
		done
		[ -n "$controllers_missing" ] || break
		now
		if [ "$NOW" -ge "$controllers_limit" ]; then
			journal note "in back-off:$controllers_missing; back in $controllers_later, 5 minutes at most"
			return 0
		fi
		sleep "$TICK"
	done
	journal controllers 'controller-manager and scheduler run'
}

# back WHY: the old bytes again, files first, the manifest after them, and wait until it is well
back() {
	WHY=$1
	printf 'before\n' >"$D/direction"
	journal back "$WHY"
	back_foreign= back_manifest=no
	now
	span $(((60 + GRACE) * PATIENCE))
	if [ "$CONTAINER" = etcd ]; then span $(((120 + GRACE) * PATIENCE)); fi
	back_limit=$((NOW + SPAN))
	while IFS="$TAB" read -r n path before after mode uid gid label <&3; do
		if [ "$before" = - ]; then continue; fi
		while :; do
			digest "$ROOT$path"
			if [ "$SHA" = "$before" ]; then break; fi
			if [ "$SHA" != "$after" ]; then
				back_foreign="$back_foreign $path"
				if [ "$path" = "$MANIFEST" ]; then back_manifest=yes; fi
				break
			fi
			if ! kept "$n" "$path" before "$before"; then
				finish_failed "$path cannot be put back: what was kept of it in $D/before/$n is not what was there (its sha256 is another)"
				return 1
			fi
			if place "$n" "$path" before "$before" "$mode" "$uid" "$gid" "$label"; then
				journal restore "$path"
				break
			fi
			now
			if [ "$NOW" -ge "$back_limit" ]; then
				finish_failed "$path could not be put back"
				return 1
			fi
			sleep "$TICK"
		done
		stop_at "restore-$n"
	done 3<"$D/files"
	if [ "$TRIGGER" != nothing ]; then
		look
		# it has read the file that was just taken back
		if [ "$TRIGGER" = stop ] && [ "$RUNNING" -gt 0 ] && [ "$RUN_ID" != "$OLD_ID" ] && [ ! -e "$D/stopped-again" ]; then
			: >"$D/stopped-again"
			journal restart "stopping $CONTAINER by CRI"
			limit 40 crictl stop -t 2 "$RUN_ID" >/dev/null 2>&1
		fi
		back_good=
		while :; do
			look
			if [ "$RUNNING" -eq 1 ] && { [ "$OLD_UID" = - ] || [ "$back_manifest" = yes ] || [ "$RUN_UID" = "$OLD_UID" ]; } && well; then
				if [ "$back_good" = "$RUN_ID" ]; then break; fi
				back_good=$RUN_ID
			else
				back_good=
			fi
			now
			if [ "$NOW" -ge "$back_limit" ]; then
				remove_files before
				blame
				if [ -n "$BLAME" ]; then
					finish_with failed "$WHY; the files are as they were, but $CONTAINER is not well (${LAST:-it does not run}): $BLAME"
				else
					finish_failed "the files are as they were, but $CONTAINER is not well (${LAST:-it does not run})"
				fi
				return 1
			fi
			attend
			sleep "$TICK"
		done
		journal ready "$RUN_STARTED"
	fi
	remove_files before
	remove_made
	if [ -n "$back_foreign" ]; then
		finish_with failed "$WHY; left as somebody else made it:$back_foreign"
	else
		finish_with rolled-back "$WHY"
	fi
}

finish_failed() {
	finish_with failed "$WHY; $1. By hand: the old bytes are in $D/before (see $D/files for their places); copy each beside its place under a name that begins with a dot, then mv it; see crictl ps -a and crictl logs"
}

# watch TURN: two that were started for the same turn are one too many
watch() {
	trap '' HUP INT TERM PIPE
	case $1 in '' | *[!0-9]*) exit 1 ;; esac
	load
	# what was checked when this was started, once more by who acts on it
	{ vet "$STATE" tree && sealed && vouch; } || {
		printf '%s\n' "$WHY" >&2
		exit 1
	}
	mkdir "$D/turn-$1" 2>/dev/null || exit 0
	# the lock first: as soon as the pid is there, its owner until now is gone
	meta who
	keep "$META"
	printf '%s %s %s\n' "$SELF" "$BORN" "$BOOT" >"$D/pid.new" && mv -f "$D/pid.new" "$D/pid"
	mend
	stop_at watch
	line "$D/direction"
	if [ "$LINE" = before ]; then
		back "$(grep -E '^[0-9]+ back ' "$JOURNAL" | head -n 1 | cut -d' ' -f3- | grep . || echo 'put back by the operator')"
	elif forward; then
		finish_with done "$DONE"
	else
		back "$WHY"
	fi
}

# there: whether the watcher has begun, after some seconds at most
there() {
	there_tries=0
	while [ ! -s "$D/pid" ] && [ "$there_tries" -lt 100 ]; do
		there_tries=$((there_tries + 1))
		sleep 0.05 2>/dev/null || sleep 1
	done
	[ -s "$D/pid" ]
}

# detach: the watcher lives on when the way here breaks
detach() {
	rm -f "$D/pid"
	detach_turn=1
	while [ -e "$D/turn-$detach_turn" ]; do detach_turn=$((detach_turn + 1)); done
	if [ "$TRIGGER" = nothing ]; then
		watch "$detach_turn" </dev/null >/dev/null 2>&1
		return 0
	fi
	# a unit of its own outlives also the end of the session's or the pod's control group
	if [ -z "$ROOT" ] && [ -d /run/systemd/system ] && have systemd-run; then
		# what is set to nothing would keep crictl from the endpoint in its own file
		if limit 10 systemd-run --quiet --collect --unit="k8s-trace-tui-$ID-$detach_turn" --setenv=PATH="$PATH" \
			${CONTAINER_RUNTIME_ENDPOINT:+--setenv=CONTAINER_RUNTIME_ENDPOINT="$CONTAINER_RUNTIME_ENDPOINT"} \
			sh "$D/node.sh" watch "$ID" "$detach_turn" >>"$D/errors" 2>&1 && there; then
			return 0
		fi
	fi
	if have setsid; then detach_with=setsid; else detach_with=nohup; fi
	$detach_with sh "$D/node.sh" watch "$ID" "$detach_turn" </dev/null >>"$D/errors" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
	there
}

# --- begin -------------------------------------------------------------------------------------------------------

# decline SENTENCE [WORD [VALUE]]: before anything was touched: leave no trace but the sentence
decline() {
	# a rollout that never began is none
	while IFS="$TAB" read -r decline_n decline_path decline_rest <&3; do
		key "$decline_path"
		line "$STATE/original/$PART/$KEY/owner"
		if [ "$LINE" = "$ID" ]; then rm -rf "$STATE/original/$PART/$KEY"; fi
	done 3<"$D/files"
	clean
	rmdir "$STATE/original/$PART" 2>/dev/null
	drop
	rm -rf "$D"
	refuse "$@"
}

unpack() {
	: >"$D/meta" && : >"$D/files" && : >"$D/made" && : >"$D/known" && mkdir "$D/before" "$D/after" || return 1
	# `read` asks for one byte at a time, and the script has a hundred thousand
	sed "/^script$TAB/d" "$D/bundle" >"$D/plan" || return 1
	n=0 unpack_end=no
	while IFS="$TAB" read -r k a b c d e f g h <&4; do
		case $k in
		file)
			n=$((n + 1))
			printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$n" "$a" "$b" "$c" "$d" "$e" "$f" "$g" >>"$D/files"
			if [ "$c" != - ]; then
				if [ "$h" = - ]; then h=; fi
				printf '%s' "$h" | base64 -d >"$D/after/$n" || return 1
				digest "$D/after/$n"
				[ "$SHA" = "$c" ] || return 1
			fi
			;;
		END) unpack_end=yes ;;
		*)
			if [ "$a" = - ]; then a=; fi
			printf '%s\t%s\n' "$k" "$a" >>"$D/meta" || return 1
			;;
		esac
	done 4<"$D/plan"
	[ "$unpack_end" = yes ] || return 1
	bring <"$D/bundle" || return 1
	rm -f "$D/bundle" "$D/plan"
}

# bring: the watcher's copy of the script is the one in the bundle that comes in, whatever lies there. The same once more
# needs no room, which there may be none of.
bring() {
	bring_text=$(sed -n "s/^script$TAB//p; \$s/^END\$/&/p")
	case $bring_text in
	*'
END') bring_text=${bring_text%?END} ;;
	*) return 1 ;;
	esac
	bring_sha=$(printf '%s' "$bring_text" | base64 -d 2>/dev/null | sha256sum)
	bring_sha=${bring_sha%% *}
	digest "$D/node.sh"
	if [ "$SHA" != "$bring_sha" ]; then
		rm -f "$D/node.sh"
		printf '%s' "$bring_text" | base64 -d >"$D/node.sh" 2>/dev/null
		digest "$D/node.sh"
	fi
	[ "$SHA" = "$bring_sha" ] && [ -s "$D/node.sh" ]
}

# pod_name FILE: metadata.name of a manifest, roughly; the plan has parsed it properly
pod_name() {
	awk '/^metadata:/ { inside = 1; next } /^[^ \t#-]/ { inside = 0 }
		inside && $1 == "name:" { gsub(/["\047\r]/, "", $2); print $2; exit }' "$1" 2>/dev/null
}

begin() {
	for begin_tool in $NEEDED; do
		have "$begin_tool" || refuse "$begin_tool is not on this node, and nothing is changed without it"
	done
	myself
	if [ -z "$ROOT" ] && [ "$MY_UID" != 0 ]; then refuse 'it needs root on this node'; fi
	own
	[ ! -e "$D" ] || refuse "there is a rollout $ID already"
	older || refuse "$WHY"
	grab "$BY"
	# an interrupted one comes first: what it left is neither old nor new
	for begin_other in "$STATE"/rollouts/*; do
		[ -d "$begin_other" ] || continue
		JOURNAL=$begin_other/journal
		ended
		if [ -z "$ENDED" ]; then
			drop
			refuse "an earlier rollout, ${begin_other##*/}, was interrupted: finish it or undo it first"
		fi
	done
	JOURNAL=$D/journal
	mkdir -p "$D" || refuse "$STATE cannot be written"
	PART=none MANIFEST=
	if ! cat >"$D/bundle" || ! unpack; then
		: >>"$D/files" 2>/dev/null
		: >>"$D/made" 2>/dev/null
		decline 'what was sent did not arrive whole, or there is no room for it; nothing was changed'
	fi
	load
	vouch || decline "$WHY"
	# what names the places, also when somebody has changed it meanwhile
	if [ -n "$MANIFEST" ] && [ -f "$ROOT$MANIFEST" ]; then
		cp "$ROOT$MANIFEST" "$D/manifest" || decline 'what was sent did not arrive whole, or there is no room for it; nothing was changed'
	fi
	meta who
	begin_who=$META
	keep "$begin_who"
	meta what
	journal begin "$begin_who, $PART: $META"
	begin_total=2097152
	while IFS="$TAB" read -r n path before after mode uid gid label <&3; do
		if [ -L "$ROOT$path" ]; then decline "$path is a symbolic link: name the file that it leads to"; fi
		digest "$ROOT$path"
		if [ "$SHA" != "$before" ]; then decline "$path has changed since it was read: read it again"; fi
		if [ "$before" != - ]; then begin_total=$((begin_total + 3 * $(wc -c <"$ROOT$path"))); fi
		if [ "$after" != - ]; then begin_total=$((begin_total + 3 * $(wc -c <"$D/after/$n"))); fi
		beside "$path"
		room "$(limit 5 df -Pk "$BESIDE" 2>/dev/null)"
		if [ "$ROOM" -lt "$begin_total" ]; then decline "there is no room on the file system of $path"; fi
	done 3<"$D/files"
	if [ "$TRIGGER" != nothing ]; then begin_alive; fi
	journal check 'as it was read, and well'
	# the old bytes, for the way back and for a later revert
	while IFS="$TAB" read -r n path before after mode uid gid label <&3; do
		key "$path"
		begin_original=$STATE/original/$PART/$KEY
		mkdir -p "$STATE/original/$PART" || decline 'the old bytes cannot be kept'
		if [ "$before" != - ]; then
			cp -p "$ROOT$path" "$D/before/$n" || decline "$path cannot be copied"
			digest "$D/before/$n"
			[ "$SHA" = "$before" ] || decline "$path has changed since it was read: read it again"
			durable "$D/before/$n"
		fi
		if [ ! -e "$begin_original/path" ]; then
			rm -rf "$begin_original"
			mkdir "$begin_original" && printf '%s\n' "$ID" >"$begin_original/owner" || decline 'the old bytes cannot be kept'
			printf '%s\n' - >"$begin_original/last"
			printf '%s\n' "$label" >"$begin_original/label"
			if [ "$before" != - ]; then cp -p "$D/before/$n" "$begin_original/bytes" || decline 'the old bytes cannot be kept'; fi
			printf '%s\n' "$path" >"$begin_original/path.new" || decline 'the old bytes cannot be kept'
			{ seal_original "$begin_original" path.new && mv -f "$begin_original/path.new" "$begin_original/path"; } || decline 'the old bytes cannot be kept'
		fi
	done 3<"$D/files"
	seal || decline 'the old bytes cannot be kept'
	journal backup "in $D"
	while IFS="$TAB" read -r n path before after mode uid gid label <&3; do
		if [ "$before" != - ]; then
			stage "$n" "$path" before "$before" "$mode" "$uid" "$gid" "$label" || decline "$BESIDE takes no copy of $path (${STAGE_SAID:-it is not whole}): is there room, and may it be written?"
		fi
		if [ "$after" != - ]; then
			stage "$n" "$path" after "$after" "$mode" "$uid" "$gid" "$label" || decline "$BESIDE takes no new $path (${STAGE_SAID:-it is not whole}): is there room, and may it be written?"
		fi
	done 3<"$D/files"
	printf 'after\n' >"$D/direction"
	durable "$D/direction"
	journal staged ''
	detach || decline 'the watcher did not start; nothing was changed'
	prune
	printf 'started\t%s\nEND\n' "$ID"
}

# begin_alive: what has to be true of a running control plane before it is touched
begin_alive() {
	have crictl || decline 'crictl is not on this node: without it nobody sees whether the new container runs'
	for begin_file in admin.conf super-admin.conf pki/ca.crt pki/apiserver-kubelet-client.crt pki/apiserver-kubelet-client.key; do
		inside "/etc/kubernetes/$begin_file" || decline "$WHY"
	done
	have setsid || have nohup || decline 'neither setsid nor nohup is on this node: nothing would watch over the change'
	sh -n "$D/node.sh" 2>/dev/null || decline 'what was sent did not arrive whole; nothing was changed'
	if [ -n "$MANIFEST" ]; then
		begin_pod=$(pod_name "$ROOT$MANIFEST")
		for begin_file in "$ROOT${MANIFEST%/*}"/*; do
			if [ -f "$begin_file" ] && [ "$begin_file" != "$ROOT$MANIFEST" ] && [ -n "$begin_pod" ] && [ "$(pod_name "$begin_file")" = "$begin_pod" ]; then
				decline "${begin_file#"$ROOT"} describes the pod $begin_pod too: kubelet runs one of the two, move it out of the directory"
			fi
		done
	fi
	containers "$CONTAINER" || decline 'CRI does not answer (crictl ps)'
	remember old
	meta unwell
	UNWELL=$META
	# what restarts nothing is no way out of anything
	if [ "$TRIGGER" = watch ]; then UNWELL=no; fi
	meta agreed
	AGREED=$META
	if [ "$TRIGGER" != watch ]; then
		needs decline
		containers "$CONTAINER" || decline 'CRI does not answer (crictl ps)'
	fi
	# what is down because of what this changes is mended by it
	if [ "$(wc -l <"$D/old")" -ne 1 ] && [ "$UNWELL" != allowed ]; then
		{ [ "$TRIGGER" != watch ] && mends; } || decline "${WHY:-there is not exactly one running $CONTAINER here: it is restarting or broken}"
		UNWELL=allowed
		journal note "$CONTAINER is down by its tracing configuration, which this changes${WORDS:+ ($WORDS)}"
	fi
	if [ ! -s "$D/old" ]; then
		# more attempts of the pod as it was say nothing of the new one
		last_words
		printf '%s\n' "$ENDED_UID" >"$D/spent"
	fi
	if [ "$TRIGGER" = stop ] && [ "$UNWELL" != allowed ]; then begin_stop; fi
	containers "$CONTROLLERS" 32 || FOUND=
	begin_found=$FOUND
	for controller in kube-controller-manager kube-scheduler; do
		only "$controller" "$begin_found"
		case $FOUND in
		'' | *" RUNNING "*) ;;
		*)
			if [ "$UNWELL" != allowed ] && [ "$TRIGGER" != watch ]; then
				backing_off
				decline "$controller is in back-off after its restarts: it should run again in $LATER (5 minutes at most)" later "$LEFT"
			fi
			;;
		esac
	done
	# before health, which names no member, and fails for a moment while they elect
	if [ "$CONTAINER" = etcd ]; then
		members
		[ "$MEMBERS" != unwell ] || spare decline
	fi
	if ! means && [ "$UNWELL" != allowed ]; then
		begin_last=$LAST
		containers "$CONTAINER" || decline 'CRI does not answer (crictl ps)'
		# it lives for a moment at each attempt
		{ [ "$TRIGGER" != watch ] && mends; } || decline "$begin_last"
		UNWELL=allowed
		journal note "$CONTAINER is down by its tracing configuration, which this changes${WORDS:+ ($WORDS)}"
	fi
	printf '%s\n' "$MEANS" >"$D/means"
	if [ "$MEANS" = wget-anonymous ]; then journal note 'nothing that is here may read from the API, so no read through etcd can be tried'; fi
	OLD_ID=- OLD_UID=-
	if [ -s "$D/old" ]; then read -r OLD_ID OLD_UID <"$D/old"; fi
	if [ "$CONTAINER" = etcd ]; then spare decline; fi
	toggles
	if [ "$TOGGLES" -ge 2 ] && [ "$TRIGGER" != watch ]; then
		journal note "restart $((TOGGLES + 1)) from here within 10 minutes: controller-manager and scheduler may stay in back-off for minutes"
	fi
}

# begin_stop: a container that ran less than 10 minutes since its last restart is started again only after a back-off
begin_stop() {
	begin_run=$(printf '%s' "$FOUND" | awk '$3 == "RUNNING" && $4 > 0 { started = $6 } END { print started }')
	[ -n "$begin_run" ] || return 0
	ago "$begin_run"
	if [ "$AGO" -lt 600 ]; then
		decline "$CONTAINER was restarted $AGO s ago: stopped now, kubelet would leave it so for 10 s to 5 minutes; wait for $((600 - AGO)) s, or plan anew, to go by the manifest" later $((600 - AGO))
	fi
}

# prune: the last 20 rollouts are kept
prune() {
	ls -t "$STATE/rollouts" 2>/dev/null | tail -n +21 | while read -r prune_id; do
		case $prune_id in *[!A-Za-z0-9-]*) continue ;; esac
		[ "$prune_id" = "$ID" ] || rm -rf "$STATE/rollouts/$prune_id"
	done
}

# resume after|before: an interrupted rollout goes on, or back
resume() {
	if [ ! -e "$STATE" ] && [ ! -L "$STATE" ] && ! remains; then refuse "there is no rollout $ID on this node"; fi
	own
	[ -d "$D" ] || refuse "there is no rollout $ID on this node"
	ended
	[ -z "$ENDED" ] || refuse "rollout $ID has ended already: $ENDED"
	if watched; then refuse "rollout $ID still runs"; fi
	grab "$BY"
	if watched; then refuse "rollout $ID still runs"; fi
	mend
	: >>"$D/files"
	: >>"$D/made"
	load
	if ! grep -qE '^[0-9]+ staged' "$JOURNAL" 2>/dev/null; then
		# it was not yet about to write
		finish_with rolled-back 'nothing had been changed when it was interrupted'
		printf 'started\t%s\nEND\n' "$ID"
		return 0
	fi
	{ sealed && vouch; } || release "$WHY: nothing was done; look who changed it"
	{ bring && sh -n "$D/node.sh" 2>/dev/null; } || release 'what was sent did not arrive whole, or there is no room for it; nothing was done'
	if [ "$CONTAINER" = etcd ] && [ "$TRIGGER" != nothing ] && [ "$TRIGGER" != watch ] && ! as_wanted "$1"; then
		UNWELL=allowed
		members
		spare release
	fi
	if [ "$TRIGGER" != nothing ] && [ "$TRIGGER" != watch ]; then needs release; fi
	if [ "$1" = before ]; then
		printf 'before\n' >"$D/direction"
	fi
	if [ "$1" = before ]; then journal resume "$BY puts it back"; else journal resume "$BY goes on with it"; fi
	detach || release 'the watcher did not start'
	printf 'started\t%s\nEND\n' "$ID"
}

# as_wanted after|before: whether every file is so already, and nothing will restart
as_wanted() {
	while IFS="$TAB" read -r n path before after rest <&3; do
		digest "$ROOT$path"
		if [ "$1" = before ]; then [ "$SHA" = "$before" ] || return 1; else [ "$SHA" = "$after" ] || return 1; fi
	done 3<"$D/files"
	return 0
}

# release SENTENCE [WORD [VALUE]]: what was interrupted stays so
release() {
	drop
	refuse "$@"
}

follow() {
	trust
	[ -d "$D" ] || refuse "there is no rollout $ID on this node"
	case $1 in '' | *[!0-9]*) refuse 'that is no number of lines' ;; esac
	# first who lives, then what was written: an end is never missed
	follow_alive=no
	if watched; then follow_alive=yes; fi
	follow_count=0
	{ while IFS= read -r follow_line; do
		follow_count=$((follow_count + 1))
		if [ "$follow_count" -gt "$1" ] && [ "$follow_count" -le $(($1 + 500)) ]; then printf 'journal\t%s\n' "$follow_line"; fi
	done <"$JOURNAL"; } 2>/dev/null
	printf 'alive\t%s\nEND\n' "$follow_alive"
}

# trust: what is read is where it is, and believed; a sentence about an older version's beside it stops no reading
trust() {
	know
	[ "$BELIEVED" = yes ] || refuse "$WHY"
	[ -z "${ID:-}" ] || open_rollout "$ID"
}

unlock() {
	trust
	owner
	if [ -z "$OWNER" ]; then refuse 'there is no lock'; fi
	if [ "$OWNER_ALIVE" = yes ]; then refuse "its owner lives: $OWNER"; fi
	rm -f "$LOCK"
	answer unlocked ":$OWNER"
	printf 'END\n'
}

# --- inspect ------------------------------------------------------------------------------------------------------

# show PATH: a line about a file and its bytes
show() {
	stay_inside "$1"
	show_target= show_label=
	if [ -L "$ROOT$1" ]; then show_target=$(readlink "$ROOT$1"); fi
	if [ ! -e "$ROOT$1" ]; then
		answer file ":$1" absent 600 0 0 - ":$show_target" -
		return 0
	fi
	show_stat=$(stat -L -c '%a %u %g %s' "$ROOT$1" 2>/dev/null) || show_stat='600 0 0 0'
	read -r show_mode show_uid show_gid show_size <<LIST
$show_stat
LIST
	if [ "$SELINUX" = yes ]; then show_label=$(stat -L -c %C "$ROOT$1" 2>/dev/null); fi
	if [ ! -f "$ROOT$1" ]; then
		show_say='it is no regular file'
	elif [ "$show_size" -gt "$MOST" ]; then
		show_say='it is larger than 1 MiB'
	elif [ ! -r "$ROOT$1" ]; then
		show_say='it may not be read'
	else
		show_say=
	fi
	show_content=-
	if [ -z "$show_say" ]; then
		coded "$ROOT$1"
		show_content="=$CODED"
	fi
	answer file ":$1" ":$show_say" "$show_mode" "$show_uid" "$show_gid" ":$show_label" ":$show_target" "$show_content"
}

# show_rollout ID: what its journal tells
show_rollout() {
	open_rollout "$1"
	ended
	show_alive=no
	if watched; then show_alive=yes; fi
	line "$JOURNAL"
	show_when=${LINE%% *}
	case $show_when in '' | *[!0-9]*) show_when=0 ;; esac
	meta part
	show_part=$META
	meta who
	show_who=$META
	meta what
	answer rollout "$ID" ":$show_part" ":$show_who" "$show_when" ":$META" ":${STEP%% *}" ":${ENDED%% *}" "$show_alive" ":${STEP#* }"
}

inspect() {
	SELINUX=no
	inspect_files=no
	if [ "${1:-}" = -f ]; then
		inspect_files=yes
		shift
	fi
	if [ -e /sys/fs/selinux/enforce ] && [ "$inspect_files" = no ]; then SELINUX=yes; fi
	inspect_host=
	stay_inside /etc/hostname
	only_files /etc/hostname
	if [ -n "$ROOT" ] && [ -r "$ROOT/etc/hostname" ]; then read -r inspect_host <"$ROOT/etc/hostname"; fi
	if [ -z "$inspect_host" ] && [ "$inspect_files" = no ]; then inspect_host=$(uname -n); fi
	answer version 1
	answer hostname ":$inspect_host"
	myself
	if [ "$MY_UID" = 0 ]; then answer root yes; else answer root no; fi
	for inspect_tool in $TOOLS; do
		if have "$inspect_tool"; then answer tool "$inspect_tool"; fi
	done
	answer selinux "$SELINUX"
	answer now "$(date +%s)"
	pods_home
	inspect_manifests=$PODS
	stay_inside "$inspect_manifests"
	if [ -d "$ROOT$inspect_manifests" ]; then
		answer manifests ":$inspect_manifests"
		inspect_count=0
		for inspect_path in "$ROOT$inspect_manifests"/* "$ROOT$inspect_manifests"/.[!.]*; do
			if [ ! -e "$inspect_path" ] && [ ! -L "$inspect_path" ]; then continue; fi
			inspect_count=$((inspect_count + 1))
			[ "$inspect_count" -le 64 ] || break
			inspect_name=${inspect_path##*/}
			answer entry ":$inspect_name"
			case $inspect_name in .*) ;; *) if [ ! -d "$inspect_path" ]; then show "$inspect_manifests/$inspect_name"; fi ;; esac
		done
	fi
	for inspect_path in /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env /etc/kubernetes/k8s-trace-tui/apiserver.yaml \
		/etc/rancher/k3s/config.yaml /etc/rancher/rke2/config.yaml /etc/systemd/system/kube-apiserver.service \
		/etc/systemd/system/etcd.service; do
		if [ -e "$ROOT$inspect_path" ]; then show "$inspect_path"; fi
	done
	for inspect_path in "$@"; do
		case $inspect_path in /*) show "$inspect_path" ;; esac
	done
	room "$(df -Pk "$KUBERNETES" 2>/dev/null)"
	answer free "$ROOM"
	# what is not believed is not read, and tells nothing of back-offs either
	know
	answer distrust ":$WHY"
	if [ "$BELIEVED" = no ]; then STATE=/dev/null/none LOCK=/dev/null/none; fi
	if [ "$inspect_files" = no ]; then inspect_live; fi
	owner
	answer lock ":$OWNER${OWNER:+ alive=$OWNER_ALIVE}"
	inspect_rollouts=$(ls -tr "$STATE/rollouts" 2>/dev/null | tail -n 20)
	for inspect_id in $inspect_rollouts; do
		case $inspect_id in *[!A-Za-z0-9-]*) ;; *) show_rollout "$inspect_id" ;; esac
	done
	printf 'END\n'
}

# inspect_live: what runs, not only what lies here
inspect_live() {
	if have crictl && have timeout; then
		endpoint
		inspect_cri=yes
		containers "kube-apiserver|etcd|$CONTROLLERS" 64 || inspect_cri=no FOUND=
		inspect_found=$FOUND
		for inspect_name in kube-apiserver etcd kube-controller-manager kube-scheduler; do
			only "$inspect_name" "$inspect_found"
			case $FOUND in
			'' | *" RUNNING "*) ;;
			*)
				last_words
				if [ -n "$WORDS" ]; then answer words "$inspect_name" ":$WORDS"; fi
				;;
			esac
			while read -r i_id i_name i_state i_attempt i_exit i_started i_finished i_uid i_log; do
				[ -n "$i_id" ] || continue
				answer container "$i_id" "$i_name" "$i_state" "$i_attempt" "$i_exit" "$i_started" "$i_finished" "$i_uid" ":$i_log"
			done <<LIST
$FOUND
LIST
			case $inspect_name in
			kube-controller-manager | kube-scheduler)
				case $FOUND in
				'' | *" RUNNING "*) ;;
				*)
					backing_off
					answer backoff "$inspect_name" "$LEFT" "$LEAST"
					;;
				esac
				;;
			esac
		done
		printf 'cri\t%s\n' "$inspect_cri"
	else
		printf 'cri\tno\n'
	fi
	if have timeout; then show_lacks; fi
	if have ss; then
		limit 5 ss -H -ltnp 'sport = :4317' 2>/dev/null | awk 'NR <= 8 {
			who = "?"; if (match($0, /\(\("[^"]*"/)) who = substr($0, RSTART + 3, RLENGTH - 4); print $4 " " who }'
	else
		cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" && $2 ~ /:10DD$/ { print "port 4317 ?"; exit }'
	fi | while read -r inspect_line; do answer listener ":$inspect_line"; done
	if have systemctl && [ -z "$ROOT" ]; then
		for inspect_unit in kubelet k3s k3s-agent rke2-server rke2-agent kube-apiserver etcd snap.microk8s.daemon-kubelite microshift; do
			if limit 5 systemctl -q is-active "$inspect_unit" 2>/dev/null; then printf 'service\t%s\n' "$inspect_unit"; fi
		done
	fi
}

# original PART: what was there before the first change and what was written last, and what is there now
original() {
	case $1 in '' | *[!a-z]*) refuse 'that is no component' ;; esac
	SELINUX=no
	trust
	original_home=$STATE/original/$1
	[ -r "$original_home/meta" ] || refuse "nothing of the $1 was changed here, or it was reverted already" nothing
	tr -d '\r' <"$original_home/meta" | while IFS="$TAB" read -r o_key o_value; do answer meta "$o_key" ":$o_value"; done
	for original_entry in "$original_home"/*; do
		[ -r "$original_entry/path" ] || continue
		sum_of "$original_entry"
		# an older version kept none, and what it left was not taken over yet
		if [ "$STATE" != "$OLD" ] && [ "$SUM" != "$(cat "$original_entry/sum" 2>/dev/null)" ]; then
			refuse "what was kept in $original_entry, of $(cat "$original_entry/path"), is not what was kept there (its sha256 is another), so it is not put back: look who changed it; \`sampling off\` takes tracing away without it"
		fi
		IFS= read -r o_path <"$original_entry/path"
		plain_path "$o_path" || refuse "$WHY"
		read -r o_last <"$original_entry/last"
		o_label=
		read -r o_label <"$original_entry/label"
		if [ -e "$original_entry/bytes" ]; then
			coded "$original_entry/bytes"
			answer original ":$o_path" "$(stat -c '%a	%u	%g' "$original_entry/bytes")" "$o_label" "$o_last" "=$CODED"
		else
			answer original ":$o_path" 600 0 0 "$o_label" "$o_last" -
		fi
		show "$o_path"
	done
	printf 'END\n'
}

# by WHO: BY is who asks, for one field of one line
by() {
	BY=${1:-somebody}
	case $BY in *"$TAB"* | *"$NEWLINE"*) BY=$(printf '%s' "$BY" | tr -d '\n\t') ;; esac
}

main() {
	verb=${1:-}
	[ $# -eq 0 ] || shift
	D=/nowhere JOURNAL=/nowhere/journal ID=
	stay_inside "${STATE#"$ROOT"}" "${OLD#"$ROOT"}" /etc/kubernetes /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env
	only_files /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env
	case $verb in
	inspect) inspect "$@" ;;
	begin | watch | follow | finish | undo)
		open_rollout "${1:-}"
		[ "$verb" = follow ] || endpoint
		case $verb in
		begin)
			by "${2:-}"
			begin
			;;
		watch) watch "${2:-1}" ;;
		follow) follow "${2:-0}" ;;
		finish | undo)
			by "${2:-}"
			AGREED=${3:-}
			if [ "$verb" = finish ]; then resume after; else resume before; fi
			;;
		esac
		;;
	original) original "${1:-}" ;;
	unlock) unlock ;;
	*) refuse 'that is no verb of this script' ;;
	esac
}

main "$@"; exit $?
