#!/bin/sh
# What node.sh may trust on a node. It stands before node.sh when that travels (see bundle.py): functions alone, which
# use node.sh's ROOT, STATE, OLD, LOCK, D, ID, BY, refuse, digest, durable, lives.
#
# State is believed only where nobody but root (or who runs this, in a directory that stands for a host) can have made
# or changed it: a folder of its own, no link, not writable by others, every directory above it the same. What is checked
# by name and used by name a moment later is the same file then, since nobody else can write in a directory on the way.
#
# Below a stand-in ROOT nothing is read or written through a link that leads out of it.

# walk PATH: REAL is where an absolute path leads, its links followed as a kernel does, also where nothing is there;
# LOOKED are the directories in which a name was looked up, a line each. Fails where a link leads nowhere.
walk() {
	walk_rest=$1 walk_links=0 REAL= LOOKED=
	while [ -n "$walk_rest" ]; do
		walk_name=${walk_rest%%/*}
		case $walk_rest in */*) walk_rest=${walk_rest#*/} ;; *) walk_rest= ;; esac
		case $walk_name in
		'' | .) continue ;;
		..)
			REAL=${REAL%/*}
			continue
			;;
		esac
		LOOKED="$LOOKED${REAL:-/}
"
		if [ -L "$REAL/$walk_name" ]; then
			walk_links=$((walk_links + 1))
			[ "$walk_links" -le 40 ] || return 1
			# the dot keeps a line feed at the end of the text, which is a part of it
			walk_text=$(readlink "$REAL/$walk_name" && printf .) || return 1
			walk_text=${walk_text%??}
			case $walk_text in
			*'
'*) return 1 ;;
			/*) REAL= ;;
			esac
			walk_rest=$walk_text/$walk_rest
		else
			REAL=$REAL/$walk_name
		fi
	done
	REAL=${REAL:-/}
}

# inside PATH: whether a path of the node stays below a stand-in ROOT, links followed; WHY where it does not
inside() {
	[ -n "$ROOT" ] || return 0
	if ! walk "$ROOT$1"; then
		WHY="$1 is a link that leads nowhere"
		return 1
	fi
	case $REAL/ in "$ROOT"/*) return 0 ;; esac
	WHY="$1 leads out of $ROOT (to $REAL): nothing is read or written there; put it into the directory, or link to what lies in it"
	return 1
}

# only_files PATH...: refuse what is there and no file: to read a pipe never ends
only_files() {
	for only_path; do
		if [ -e "$ROOT$only_path" ] && [ ! -f "$ROOT$only_path" ]; then
			refuse "$only_path is no regular file, so it is not read: put the file there that belongs there"
		fi
	done
}

# stay_inside PATH...: refuse what leads out
stay_inside() {
	for stay_path; do inside "$stay_path" || refuse "$WHY"; done
}

# --- whose it is -------------------------------------------------------------------------------------------------

# vetted HOW OWNER PATH...: whether only root, who runs this, or the user number OWNER (- for nobody) can have made and
# can change each of these; WHY is the first that is not so. HOW is `tree`: files and directories; `once`: such, and no
# file has a second name, under which it may be somebody's in another place; `lock`: a link is right; `above`: those are
# directories on the way; `closed`: directories that others cannot even enter; `kept`: files in such, which keep the
# owner and the mode of what they are copies of, and have their sha256 beside them; `place`: what `vet` says of its place.
vetted() {
	vetted_by=$1 vetted_how=$1 vetted_owner=$2
	shift 2
	# the group of one user alone is that user
	vetted_group=-
	myself
	if [ "$vetted_how" = above ] && [ -n "$ROOT" ] && [ "$MY_UID" != 0 ]; then
		if [ -z "${MY_GROUP:-}" ]; then
			if [ "$(id -gn)" = "$(id -un)" ]; then MY_GROUP=$(id -g); else MY_GROUP=-; fi
		fi
		vetted_group=$MY_GROUP
	fi
	vetted_tries=0
	until vetted_said=$(stat -c '%f %u %g %h %n' "$@" 2>/dev/null); do
		# a watcher may have taken some of it away meanwhile
		vetted_tries=$((vetted_tries + 1))
		if [ "$vetted_tries" -ge 20 ]; then
			WHY="$1 and what lies there cannot be looked at"
			return 1
		fi
		for vetted_path; do
			shift
			if [ -e "$vetted_path" ] || [ -L "$vetted_path" ]; then set -- "$@" "$vetted_path"; fi
		done
		[ $# -gt 0 ] || return 0
	done
	WHY=
	lines "$vetted_said" vetted_line
	[ -z "$WHY" ]
}

vetted_line() {
	[ -z "$WHY" ] || return 0
	vetted_mode=${LINE%% *} LINE=${LINE#* }
	vetted_uid=${LINE%% *} LINE=${LINE#* }
	vetted_gid=${LINE%% *} LINE=${LINE#* }
	vetted_links=${LINE%% *} vetted_name=${LINE#* }
	[ "$vetted_by" != place ] || vet_place "$vetted_name"
	vetted_one || WHY="$vetted_name $WHY"
}

# vetted_one: the line of one of them. The mode is in hexadecimal: its first digit is the kind; an access list for others
# shows as its group's bits.
vetted_one() {
	case $vetted_how:$vetted_mode in
	*:[48]??? | lock:a???) ;;
	*:a???) WHY='is a link' ;;
	*) WHY='is neither a file nor a directory' ;;
	esac
	[ -z "$WHY" ] || return 1
	case $vetted_how:$vetted_mode in
	above:[!4]??? | closed:[!4]???) WHY='is no directory' ;;
	closed:??[048c]0) ;;
	closed:*) WHY='can be entered by others' ;;
	kept:8???) return 0 ;;
	kept:*) WHY='is no file' ;;
	esac
	[ -z "$WHY" ] || return 1
	case $vetted_uid in
	0 | "$MY_UID" | "$vetted_owner") ;;
	*)
		WHY="belongs to user $vetted_uid"
		return 1
		;;
	esac
	case $vetted_mode in
	a???) return 0 ;;
	??[13579bdf]?)
		if [ "$vetted_gid" != "$vetted_group" ]; then
			WHY='can be written by its group'
			return 1
		fi
		;;
	esac
	case $vetted_how:$vetted_mode in
	*:???[2367abef]) WHY='can be written by anybody' ;;
	once:8???) [ "$vetted_links" = 1 ] || WHY='has a second name somewhere else' ;;
	esac
	[ -z "$WHY" ]
}

# above PATH [OWNER [BUT]]: `vetted` for the directories on the way to a path of this machine, from ROOT on, as far as
# they are there; those that lead to BUT, or are it, are left out
above() {
	above_owner=${2:--} above_but=- above_real=-
	if [ -n "${3:-}" ] && walk "$3"; then above_but=$3 above_real=$REAL; fi
	if ! walk "$1"; then
		WHY="$1 is a link that leads nowhere"
		return 1
	fi
	set --
	while IFS= read -r above_path; do
		[ -e "$above_path" ] || continue
		case ${above_path%/}/ in "$ROOT"/*) ;; *) continue ;; esac
		case $above_but/ in "${above_path%/}"/*) continue ;; esac
		case $above_real/ in "${above_path%/}"/*) continue ;; esac
		set -- "$@" "$above_path"
	done <<LIST
$LOOKED
LIST
	[ $# -eq 0 ] || vetted above "$above_owner" "$@"
}

# vet HOME HOW: `vetted` for a place of state and all that is read or run from it: what only root can write in, only root
# has filled. What lies in its folders is looked at once these are known to be closed.
vet() {
	vet_home=$1 vet_how=$2
	above "$vet_home" || return 1
	vet_these "$vet_home" "$vet_home/lock" "$vet_home/rollouts" "$vet_home/original" || return 1
	vet_these "$vet_home"/rollouts/* "$vet_home"/original/* "$vet_home"/rollouts/*/* "$vet_home"/original/*/* \
		"$vet_home"/rollouts/*/before/* "$vet_home"/rollouts/*/after/* "$vet_home"/original/*/*/*
}

# vet_these PATH...: `vetted` for those that are there
vet_these() {
	for vet_path; do
		shift
		if [ -e "$vet_path" ] || [ -L "$vet_path" ]; then set -- "$@" "$vet_path"; fi
	done
	[ $# -eq 0 ] || vetted place - "$@"
}

# vet_place PATH: what is to be true of a path in state
vet_place() {
	case $1 in
	"$vet_home/lock") vetted_how=lock ;;
	"$vet_home/rollouts" | "$vet_home/original") vetted_how=closed ;;
	"$vet_home"/rollouts/*/before/* | "$vet_home"/rollouts/*/after/* | "$vet_home"/original/*/*/bytes) vetted_how=kept ;;
	*) vetted_how=$vet_how ;;
	esac
}

# --- where it is -------------------------------------------------------------------------------------------------

# remains: whether an older version's state lies in the folder of the database, where it once was
remains() {
	for remains_path in "$OLD/rollouts" "$OLD/original" "$OLD/lock"; do
		if [ -e "$remains_path" ] || [ -L "$remains_path" ]; then return 0; fi
	done
	return 1
}

# know: before anything is read, nothing is changed. STATE and LOCK become those of an older version where its state was
# not taken over yet; BELIEVED is no where what lies there is not believed, and WHY the sentence about it, "" for none
know() {
	BELIEVED=yes WHY=
	if [ -e "$STATE" ] || [ -L "$STATE" ]; then
		if ! vet "$STATE" tree; then
			BELIEVED=no
			doubt_here
		elif [ -e "$STATE/taking" ] || older; then
			WHY=
		fi
		return 0
	fi
	remains || return 0
	if vet "$OLD" once; then
		STATE=$OLD LOCK=$OLD/lock WHY=
	else
		BELIEVED=no
		doubt
	fi
}

# doubt_here: WHY as a sentence about the state
doubt_here() {
	WHY="$WHY, so what $STATE says of rollouts is not believed: look who made it, and remove it: \`sampling off\` needs nothing of it"
}

# believe: refuse what is not to be believed
believe() {
	if ! vet "$STATE" tree; then
		doubt_here
		refuse "$WHY"
	fi
}

# doubt: WHY as a sentence about an older version's state
doubt() {
	WHY="$WHY, so the rollouts that lie in $OLD, as by an older version of this program, are not believed: look who made them, and remove rollouts, original and lock there: \`sampling off\` needs nothing of them"
}

# older: whether no older version is at work, or has left something undone, since its state was taken over; WHY else
older() {
	remains || return 0
	# not root's alone: no older version made that
	vet "$OLD" once || return 0
	older_lock=$LOCK older_d=$D older_journal=$JOURNAL older_why=
	LOCK=$OLD/lock
	owner
	if [ "$OWNER_ALIVE" = yes ]; then
		older_why="another rollout holds the lock on this node, that of $OWNER_WHO ($OWNER_ID, by an older version of this program): wait for its end"
	else
		for older_path in "$OLD"/rollouts/*; do
			[ -d "$older_path" ] || continue
			JOURNAL=$older_path/journal
			ended
			[ -n "$ENDED" ] || older_why="an older version of this program has left the rollout ${older_path##*/} undone in $OLD: finish or undo it with that version, since one of this version was here before"
		done
	fi
	LOCK=$older_lock D=$older_d JOURNAL=$older_journal
	WHY=$older_why
	[ -z "$WHY" ]
}

# own: before anything is changed: STATE is there and to be believed, and an older version's is taken over, once
own() {
	if [ -e "$STATE" ] || [ -L "$STATE" ]; then
		believe
		[ ! -e "$STATE/taking" ] || taken
	elif remains; then
		take_over
	else
		above "$STATE" || refuse "$WHY, and nothing is changed while somebody else could make away with the way back: run this as its owner, or take that right away"
	fi
	own_said=$(mkdir -p "$STATE/rollouts" "$STATE/original" 2>&1) ||
		refuse "$STATE cannot be made (${own_said##*: }), and nothing is changed without a way back: it needs root, and room"
	chmod 700 "$STATE" 2>/dev/null
	believe
}

# take_over: an older version's state, all of it or nothing. It is copied: whoever has a file of it open has no file of
# the copy. None of its scripts comes along. What has no sha256 beside it, since that version kept none, gets it here,
# after the checks; its lock is held meanwhile, so that it is not at work.
take_over() {
	if ! vet "$OLD" once; then
		doubt
		refuse "$WHY"
	fi
	own_lock=$LOCK
	LOCK=$OLD/lock
	grab "$BY"
	for D in "$OLD"/rollouts/*; do
		if [ -d "$D" ] && watched; then
			drop
			refuse "rollout ${D##*/}, by an older version of this program, still runs: wait for its end"
		fi
	done
	rm -rf "$STATE.new"
	if ! { mkdir "$STATE.new" && mkdir "$STATE.new/rollouts" "$STATE.new/original" && copy_over && : >"$STATE.new/taking"; } 2>/dev/null; then
		rm -rf "$STATE.new"
		drop
		refuse "$STATE cannot be made of what an older version left in $OLD: it needs root, and room"
	fi
	limit 60 sync
	mv "$STATE.new" "$STATE" || refuse "$STATE cannot be made"
	LOCK=$own_lock
	open_rollout "$ID"
	taken
}

copy_over() {
	for copy_path in rollouts original; do
		[ ! -d "$OLD/$copy_path" ] || cp -R -p "$OLD/$copy_path" "$STATE.new/" || return 1
	done
	for D in "$STATE.new"/rollouts/*; do
		[ -d "$D" ] || continue
		rm -f "$D/node.sh"
		seal || return 1
	done
	for copy_path in "$STATE.new"/original/*/*; do
		[ ! -f "$copy_path/path" ] || seal_original "$copy_path" || return 1
	done
}

# taken: an older version's state is here, so it goes there; also after a power cut in between
taken() {
	if vet "$OLD" once; then
		taken_lock=$LOCK
		LOCK=$OLD/lock
		owner
		case $OWNER in "pid=$SELF "*) ;; *) grab "$BY" ;; esac
		rm -rf "$OLD/rollouts" "$OLD/original"
		rm -f "$LOCK"
		LOCK=$taken_lock
	fi
	rm -f "$STATE/taking"
}

# --- what was kept -----------------------------------------------------------------------------------------------

# seal: what a rollout goes by, with its sha256; the files that it puts back have theirs in the columns of `files`
seal() {
	for seal_name in meta files manifest; do
		digest "$D/$seal_name"
		printf '%s %s\n' "$SHA" "$seal_name"
	done >"$D/sums.new" || return 1
	durable "$D/sums.new"
	mv -f "$D/sums.new" "$D/sums"
}

# sealed: whether all that a rollout goes by and puts back is what was kept; WHY names what is not
sealed() {
	for sealed_name in meta files manifest; do
		digest "$D/$sealed_name"
		if ! holds "$D/sums" "$SHA $sealed_name"; then
			WHY="$D/$sealed_name is not what was kept there (its sha256 is another than in $D/sums)"
			return 1
		fi
	done
	while IFS="$TAB" read -r sealed_n sealed_path sealed_before sealed_after sealed_rest <&3; do
		for sealed_name in before after; do
			if [ "$sealed_name" = before ]; then sealed_sha=$sealed_before; else sealed_sha=$sealed_after; fi
			digest "$D/$sealed_name/$sealed_n"
			if [ "$SHA" != "$sealed_sha" ]; then
				WHY="$D/$sealed_name/$sealed_n, which was kept for $sealed_path, is not what was kept there (its sha256 is another than in $D/files)"
				return 1
			fi
		done
	done 3<"$D/files"
	return 0
}

# sum_of ENTRY [PATH_FILE]: SUM is the sha256 of all that a revert would put back from an entry of original/
sum_of() {
	digest "$1/bytes"
	SUM=$({
		cat "$1/${2:-path}" "$1/label"
		printf '%s\n' "$SHA"
		if [ "$SHA" != - ]; then stat -c '%a %u %g' "$1/bytes"; fi
	} 2>/dev/null | sha256sum)
	SUM=${SUM%% *}
}

# seal_original ENTRY [PATH_FILE]
seal_original() {
	sum_of "$@"
	printf '%s\n' "$SUM" >"$1/sum"
}

# --- what may be written -----------------------------------------------------------------------------------------

# pods_home: PODS is where kubelet looks for static pods
pods_home() {
	PODS=
	if [ -e "$ROOT/var/lib/kubelet/config.yaml" ]; then
		PODS=$(sed -n '/^staticPodPath:/{s/^staticPodPath:[ "]*\([^" ]*\).*/\1/p;q;}' "$ROOT/var/lib/kubelet/config.yaml" 2>/dev/null)
	fi
	PODS=${PODS:-/etc/kubernetes/manifests}
	PODS=${PODS%/}
}

# plain_path PATH: an absolute one without detours
plain_path() {
	case $1/ in
	*//* | */./* | */../*) ;;
	/*) return 0 ;;
	esac
	WHY="${1:-an empty path} is no plain absolute path"
	return 1
}

# ours_to_write PATH: whether a change of tracing writes there: below /etc/kubernetes, in kubelet's directory of static
# pods, or in one that a manifest names, here or as this rollout has it. WHY where not, or where it leads elsewhere.
ours_to_write() {
	plain_path "$1" || return 1
	inside "${1%/*}" || return 1
	case $1 in
	/etc/kubernetes/* | "$PODS"/*) ;;
	*)
		if ! named "$1"; then
			WHY="$1 lies neither below /etc/kubernetes nor in a directory that a manifest names, so it is not written"
			return 1
		fi
		;;
	esac
	if [ -n "$ROOT" ] && [ "$TRIGGER" = nothing ]; then
		# a copy of a node's files: whoever owns the manifests there is root nowhere
		ours_uid=- ours_but=
	else
		# whose the manifests are has root's rights by them already
		PODS_UID=${PODS_UID:-$(stat -L -c %u "$ROOT$PODS" 2>/dev/null)}
		ours_uid=$PODS_UID ours_but=$ROOT$PODS
	fi
	if ! above "$ROOT$1" "$ours_uid" "$ours_but"; then
		WHY="$WHY, and could change under our hands what is written as $1: take that right away"
		return 1
	fi
}

# named PATH: whether a manifest names the path, or a directory above it, as a whole word
named() {
	named_path=$1
	while [ -n "$named_path" ]; do
		for named_file in "$ROOT$PODS"/* "$D/manifest" "$D"/before/* "$D"/after/*; do
			[ -f "$named_file" ] || continue
			inside "${named_file#"$ROOT"}" || continue
			if NAMED=$named_path awk '
				BEGIN { path = ENVIRON["NAMED"] }
				{
					rest = " " $0 " "
					while (at = index(rest, path)) {
						before = substr(rest, at - 1, 1)
						rest = substr(rest, at + length(path))
						if (before !~ /[A-Za-z0-9._\/-]/ && rest ~ /^\/?[]\047" \t\r,}:]/) { found = 1; exit }
					}
				}
				END { exit !found }' "$named_file" 2>/dev/null; then return 0; fi
		done
		named_path=${named_path%/*}
	done
	return 1
}

# vouch: whether what a rollout goes by can be followed; WHY where not. Whoever wrote it was root, and all the same: no
# path that leads elsewhere, no word where a number belongs, nothing that a command would take for an option.
vouch() {
	meta part
	case $META in '' | *[!a-z]*) vouch_bad part || return 1 ;; esac
	case $TRIGGER in nothing | watch | stop | manifest) ;; *) vouch_bad trigger || return 1 ;; esac
	case $CONTAINER in -* | *[!A-Za-z0-9-]*) [ "$CONTAINER" = - ] || vouch_bad container || return 1 ;; esac
	for vouch_url in $HEALTH $READ; do
		case $vouch_url in
		- | '') ;;
		*[!]A-Za-z0-9._~:/?=\&%[-]*) vouch_bad health || return 1 ;;
		http://* | https://*) ;;
		*) vouch_bad health || return 1 ;;
		esac
	done
	pods_home
	case $MANIFEST in
	'' | -) ;;
	*) { plain_path "$MANIFEST" && inside "$MANIFEST"; } || return 1 ;;
	esac
	vouch_n=0
	while IFS="$TAB" read -r n path before after mode uid gid label <&3; do
		vouch_n=$((vouch_n + 1))
		[ "$n" = "$vouch_n" ] || vouch_bad files || return 1
		for vouch_sha in "$before" "$after"; do
			case $vouch_sha in
			-) ;;
			*[!0-9a-f]*) vouch_bad files || return 1 ;;
			*) [ ${#vouch_sha} -eq 64 ] || vouch_bad files || return 1 ;;
			esac
		done
		case $mode in '' | *[!0-7]* | ?????*) vouch_bad files || return 1 ;; esac
		case $uid in '' | *[!0-9]*) vouch_bad files || return 1 ;; esac
		case $gid in '' | *[!0-9]*) vouch_bad files || return 1 ;; esac
		case $label in - | [!-]*) ;; *) vouch_bad files || return 1 ;; esac
		ours_to_write "$path" || return 1
	done 3<"$D/files"
	while IFS= read -r path <&3; do
		plain_path "$path" && inside "$path" || return 1
		cut -f2 "$D/files" | MADE=$path awk 'index($0, ENVIRON["MADE"] "/") == 1 { found = 1 } END { exit !found }' ||
			vouch_bad made || return 1
	done 3<"$D/made"
	for vouch_file in known old; do
		if grep -qvE '^[A-Za-z0-9_.][A-Za-z0-9_.-]*( [A-Za-z0-9_.-]*)?$' "$D/$vouch_file" 2>/dev/null; then
			vouch_bad "$vouch_file" || return 1
		fi
	done
	return 0
}

vouch_bad() {
	WHY="$D/$1 holds what this program never wrote there"
	case $1 in part | trigger | container | health) WHY="$D/meta holds what this program never wrote there ($1)" ;; esac
	return 1
}
