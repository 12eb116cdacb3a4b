#!/bin/sh
# What starts a static pod again on a node, and whether all of it works: kubelet, that it reads this manifest, the
# container runtime, room on the disks, the image. It stands before node.sh when that travels (see bundle.py): functions
# alone, which use node.sh's ROOT, KUBERNETES, PACE, MANIFEST, CONTAINER, AGREED, D, have, limit, containers, inside, journal.
#
# A check `lacks_X` sets LACK: no, yes (LACKS is the sentence, with the way out behind its only colon), or unknown (LACKS
# is why nobody knows).

# --- kubelet ---------------------------------------------------------------------------------------------------------

# kubelet_process: KUBELET_PID is kubelet's process, "" for none, KUBELET_STATE its state as /proc has it. PROCESSES is
# `known` where /proc shows what runs on the node: in a toolbox with processes of its own none of the node's is seen.
kubelet_process() {
	KUBELET_PID= KUBELET_STATE= PROCESSES=unknown
	process_home=$(readlink "$ROOT/proc/self/ns/pid" 2>/dev/null)
	for process_path in "$ROOT"/proc/[0-9]*; do
		process_name=
		{ read -r process_name <"$process_path/comm"; } 2>/dev/null || continue
		case $process_name in
		kubelet)
			# one in a container of this machine, as kind's, is another node's
			[ "$(readlink "$process_path/ns/pid" 2>/dev/null)" = "$process_home" ] || continue
			process "$process_path"
			case $PROCESS in '' | Z* | X*) continue ;; esac
			KUBELET_PID=${process_path##*/} KUBELET_STATE=$PROCESS PROCESSES=known
			;;
		kthreadd | containerd | crio | cri-dockerd | kube-apiserver | kube-controller | kube-scheduler)
			PROCESSES=known
			;;
		esac
	done
}

# kubelet_flag NAME: VALUE is what kubelet was given for one of its flags, "" for nothing
kubelet_flag() {
	VALUE= flag_take=no
	lines "$KUBELET_ARGUMENTS" flag_line "--$1"
}

flag_line() {
	case $LINE in
	"$1") flag_take=yes ;;
	"$1="*) VALUE=${LINE#"$1="} flag_take=no ;;
	# what stood between was empty
	--*) flag_take=no ;;
	*)
		if [ "$flag_take" = yes ]; then VALUE=$LINE flag_take=no; fi
		;;
	esac
}

# kubelet_value KEY: VALUE is what its configuration says for a key that begins a line, "" for nothing
kubelet_value() {
	VALUE=
	lines "$KUBELET_CONFIGURED" value_line "$1"
}

value_line() {
	case $LINE in *"$1"*) ;; *) return 0 ;; esac
	LINE=${LINE#"${LINE%%[!\ \"\{]*}"}
	case $LINE in
	"$1:"*) VALUE=${LINE#"$1:"} ;;
	"$1\":"*) VALUE=${LINE#"$1\":"} ;;
	*) return 0 ;;
	esac
	VALUE=${VALUE#"${VALUE%%[!\ \"\']*}"}
	VALUE=${VALUE%%[\"\',\ \}]*}
}

# kubelet_settings: KUBELET_ARGUMENTS, a line each, are those of the process, else those of the files that its unit
# reads; KUBELET_CONFIGURED is the text of its configuration, "" where it is not found
kubelet_settings() {
	kubelet_process
	if [ -n "$KUBELET_PID" ]; then
		KUBELET_ARGUMENTS=$(head -c 65536 "$ROOT/proc/$KUBELET_PID/cmdline" 2>/dev/null | tr '\000' '\n')
	else
		KUBELET_ARGUMENTS=
		for settings_file in /var/lib/kubelet/kubeadm-flags.env /etc/default/kubelet /etc/sysconfig/kubelet; do
			inside "$settings_file" || continue
			[ -e "$ROOT$settings_file" ] || continue
			KUBELET_ARGUMENTS="$KUBELET_ARGUMENTS
$(head -c 65536 "$ROOT$settings_file" 2>/dev/null | sed 's/^[A-Z_]*=//' | tr "\"' " '\n\n\n')"
		done
	fi
	kubelet_flag config
	settings_file=${VALUE:-/var/lib/kubelet/config.yaml}
	kubelet_flag config-dir
	settings_more=$VALUE
	KUBELET_CONFIGURED=
	if inside "$settings_file" && [ -e "$ROOT$settings_file" ]; then KUBELET_CONFIGURED=$(head -c "$MOST" "$ROOT$settings_file" 2>/dev/null); fi
	if [ -n "$settings_more" ] && inside "$settings_more"; then
		KUBELET_CONFIGURED="$KUBELET_CONFIGURED
$(cat "$ROOT$settings_more"/*.conf 2>/dev/null | head -c "$MOST")"
	fi
}

# kubelet_says NAME AGO: WAITS is for how many seconds kubelet says that it does not start a container of that name again,
# which ended AGO seconds ago; "" where it says nothing. Its log has it at every verbosity; where that is not at hand, its
# own list of pods.
kubelet_says() {
	WAITS=
	if have journalctl; then
		says_since=$(($(date +%s) - $2 * PACE / 1000 - 1))
		WAITS=$(limit 5 journalctl -q -u kubelet --no-pager -o short-unix -n 5000 2>/dev/null | head -c 8388608 |
			awk -v since="$says_since" '$1 + 0 >= since' | back_off_of "$1")
	fi
	if [ -n "$WAITS" ] || ! have curl || [ ! -r "$KUBERNETES/pki/apiserver-kubelet-client.crt" ]; then return 0; fi
	kubelet_settings
	kubelet_flag port
	says_port=$VALUE
	if [ -z "$says_port" ]; then
		kubelet_value port
		says_port=$VALUE
	fi
	case $says_port in '' | *[!0-9]*) says_port=10250 ;; esac
	WAITS=$(limit 5 curl -q -s -k --noproxy '*' --max-time 4 --cert "$KUBERNETES/pki/apiserver-kubelet-client.crt" \
		--key "$KUBERNETES/pki/apiserver-kubelet-client.key" "https://127.0.0.1:$says_port/pods" 2>/dev/null |
		head -c 8388608 | back_off_of "$1")
}

# back_off_of NAME: of a log or a list of pods, the seconds of the last back-off that it tells of containers of that name
back_off_of() {
	grep -oE "back-off [0-9hms.]+ restarting failed container=$1 " | tail -n 1 | awk '{
		seconds = 0
		while (match($2, /^[0-9.]+[hms]/)) {
			unit = substr($2, RLENGTH, 1)
			seconds += substr($2, 1, RLENGTH - 1) * (unit == "h" ? 3600 : unit == "m" ? 60 : 1)
			$2 = substr($2, RLENGTH + 1)
		}
		if ($2 == "" && seconds < 100000) printf "%.0f\n", seconds
	}'
}

# kubelet_health: HEALTHZ is what kubelet's own health answers, 000 for nothing, off where it has none, - where nobody
# here could ask; HEALTHZ_AT is where
kubelet_health() {
	kubelet_flag healthz-port
	health_port=$VALUE
	if [ -z "$health_port" ]; then
		kubelet_value healthzPort
		health_port=$VALUE
	fi
	case $health_port in '' | *[!0-9]*) health_port=10248 ;; esac
	kubelet_flag healthz-bind-address
	health_host=$VALUE
	if [ -z "$health_host" ]; then
		kubelet_value healthzBindAddress
		health_host=$VALUE
	fi
	case $health_host in
	'' | 0.0.0.0 | *[!0-9a-fA-F.:]*) health_host=127.0.0.1 ;;
	::) health_host='[::1]' ;;
	*:*) health_host="[$health_host]" ;;
	esac
	HEALTHZ_AT=$health_host:$health_port/healthz
	if [ "$health_port" -eq 0 ]; then
		HEALTHZ=off
	elif have curl; then
		HEALTHZ=$(limit 5 curl -q -s -o /dev/null -w '%{http_code}' --noproxy '*' --max-time 3 "http://$HEALTHZ_AT" 2>/dev/null)
	elif have wget; then
		if health_said=$(
			unset http_proxy HTTP_PROXY
			limit 5 wget -S -T 3 -O /dev/null "http://$HEALTHZ_AT" 2>&1 >/dev/null
		); then
			HEALTHZ=200
		else
			HEALTHZ=$(printf '%s\n' "$health_said" | sed -n 's|.*HTTP/[0-9.]* \([1-5][0-9][0-9]\).*|\1|p' | tail -n 1)
		fi
	else
		HEALTHZ=-
	fi
	HEALTHZ=${HEALTHZ:-000}
}

# lacks_kubelet: by its health; by its process where it has none, or nobody here could ask. A refused connection alone
# may be that of a network that is not the node's.
lacks_kubelet() {
	LACK=yes
	kubelet_settings
	kubelet_health
	# stopped, it accepts no more than its socket does for it
	case $KUBELET_STATE in
	T | t)
		LACKS="kubelet does not answer, its process $KUBELET_PID is stopped by a signal, and nothing else starts a pod again: let it go on (kill -CONT $KUBELET_PID)"
		return 0
		;;
	esac
	case $HEALTHZ in
	200) LACK=no ;;
	off | -)
		if [ -n "$KUBELET_PID" ]; then
			LACK=no
		elif [ "$PROCESSES" = known ]; then
			kubelet_gone
		else
			LACK=unknown
			LACKS='its healthz is off'
			[ "$HEALTHZ" = off ] || LACKS='neither curl nor wget is here'
			LACKS="$LACKS, and no process of the node is seen from here"
		fi
		;;
	000)
		if [ -n "$KUBELET_PID" ]; then
			LACKS="kubelet runs (process $KUBELET_PID), but does not answer on $HEALTHZ_AT, so nothing would start a pod again: wait until it does, or restart it (systemctl restart kubelet); journalctl -u kubelet says why"
		elif [ "$PROCESSES" = known ]; then
			kubelet_gone
		else
			LACK=unknown LACKS="nobody answers on $HEALTHZ_AT, and no process of the node is seen from here"
		fi
		;;
	*)
		LACKS="kubelet is not well (its healthz on $HEALTHZ_AT answers $HEALTHZ) and may start no pod again: see journalctl -u kubelet, and restart it (systemctl restart kubelet)"
		;;
	esac
}

kubelet_gone() {
	LACKS='kubelet does not run, and nothing else starts a pod again: start it (systemctl start kubelet); journalctl -u kubelet says why it ended'
}

# lacks_manifest: whether kubelet reads the directory of MANIFEST. After lacks_kubelet, by what that found.
lacks_manifest() {
	LACK=no
	[ -n "$MANIFEST" ] || return 0
	kubelet_flag pod-manifest-path
	manifest_read=$VALUE
	if [ -z "$manifest_read" ]; then
		# without its configuration nobody knows
		[ -n "$KUBELET_CONFIGURED" ] || return 0
		kubelet_value staticPodPath
		manifest_read=$VALUE
	fi
	if [ -z "$manifest_read" ]; then
		LACK=yes LACKS="kubelet reads no manifests of static pods (its configuration has no staticPodPath), so it would not act on $MANIFEST: set that, and restart kubelet"
		return 0
	fi
	manifest_read=${manifest_read%/}
	case $MANIFEST in "$manifest_read" | "$manifest_read"/*) return 0 ;; esac
	# two names of one directory
	if [ "$ROOT$manifest_read" -ef "$ROOT${MANIFEST%/*}" ]; then return 0; fi
	LACK=yes LACKS="kubelet reads its manifests in $manifest_read, so it would not act on $MANIFEST: move that there, or restart kubelet with the staticPodPath that is meant"
}

# --- the runtime, the disks, the image -------------------------------------------------------------------------------

# lacks_runtime: it answers and says that it can run containers. Its network may be missing: the control plane's pods
# have the node's.
lacks_runtime() {
	LACK=no
	# said by itself, not at the end of a pipe, whose code is another's
	if ! runtime_said=$(limit 10 crictl info 2>/dev/null); then
		LACK=yes LACKS='the container runtime does not answer (crictl info), so no container would be started: restart it (systemctl restart containerd, or crio)'
		return 0
	fi
	runtime_said=$(printf '%s\n' "$runtime_said" | awk '
		{ gsub(/[ \t\r]/, ""); all = all $0; if (length(all) > 262144) exit }
		END { if (match(all, /[{][^{}]*"type":"RuntimeReady"[^{}]*[}]/)) print substr(all, RSTART, RLENGTH) }')
	case $runtime_said in
	*'"status":false'*)
		runtime_why=$(printf '%s' "$runtime_said" | sed -n 's/.*"reason":"\([^"]*\)".*/\1/p' | cut -c1-100)
		LACK=yes LACKS="the container runtime says that it is not ready (${runtime_why:-no reason given}), so no container would be started: see its log, and restart it (systemctl restart containerd, or crio)"
		;;
	esac
}

# lacks_disk: what kubelet and the runtime write into before a container starts has room and may be written
lacks_disk() {
	LACK=no
	set --
	for disk_path in /var/lib/kubelet /var/log/pods /var/lib/containerd /var/lib/containers; do
		if [ -d "$ROOT$disk_path" ] && inside "$disk_path"; then set -- "$@" "$ROOT$disk_path"; fi
	done
	[ $# -gt 0 ] || return 0
	disk_said=$(limit 5 df -Pk "$@" 2>/dev/null)
	disk_said=$(printf '%s\n' "$disk_said" | awk '
		NR == FNR {
			if (FNR > 1 && $4 < 1024) { full = $6; exit }
			if (FNR > 1) wanted[$6] = 1
			next
		}
		$5 in wanted { closed[$5] = ($6 ~ /(^|,)ro(,|$)/) }
		END {
			if (full != "") print "full " full
			else for (at in closed) if (closed[at]) { print "closed " at; exit }
		}' - /proc/self/mountinfo 2>/dev/null)
	case $disk_said in
	full*)
		LACK=yes LACKS="the file system at ${disk_said#full } is full, so neither kubelet nor the container runtime could start a pod again: make room there"
		;;
	closed*)
		LACK=yes LACKS="the file system at ${disk_said#closed } is mounted read-only, so neither kubelet nor the container runtime could start a pod again: look why (dmesg), and remount it"
		;;
	esac
}

# lacks_image FILE: the images of a manifest lie here, where kubelet would not pull them in any case
lacks_image() {
	LACK=no
	image_names=$(awk '
		/^[ \t]*#/ { next }
		/imagePullPolicy["\047]?:[ \t]*["\047]?Always/ { always = 1 }
		/imagePullPolicy["\047]?:[ \t]*["\047]?(IfNotPresent|Never)/ { named = 1 }
		match($0, /(^|[ \t{,"\047-])image["\047]?:[ \t]*["\047]?[^"\047, \t}\r]+/) {
			name = substr($0, RSTART, RLENGTH)
			sub(/.*image["\047]?:[ \t]*["\047]?/, "", name)
			names[++n] = name
		}
		END {
			if (always) exit
			for (i = 1; i <= n && i <= 8; i++) {
				last = names[i]
				sub(/.*\//, "", last)
				# without a tag, and with this one, it is pulled each time unless the manifest says otherwise
				if (named || index(last, "@") || (index(last, ":") && last !~ /:latest$/)) print names[i]
			}
		}' "$1" 2>/dev/null)
	for image_name in $image_names; do
		image_said=$(limit 10 crictl inspecti -q "$image_name" 2>&1 >/dev/null) && continue
		case $image_said in
		*'no such image'* | *'not found'* | *'not present'*)
			LACK=yes LACKS="the image $image_name is not on this node, and whether it could be pulled while its control plane restarts is not known: pull it first (crictl pull $image_name)"
			return 0
			;;
		esac
	done
}

# --- all of it ---------------------------------------------------------------------------------------------------------

# needs WORD: go on only where all that brings CONTAINER back is known to work, or was agreed to be unknown. WORD is
# `decline` or `release`: what is done else.
needs() {
	lacks_kubelet
	case $LACK in
	yes) $1 "$LACKS" ;;
	unknown)
		case " $AGREED " in
		*' kubelet '*) journal note "nobody knows whether kubelet runs ($LACKS); the operator went on" ;;
		*) $1 "it cannot be found out whether kubelet runs ($LACKS), and without it nothing starts $CONTAINER again" asks kubelet ;;
		esac
		;;
	esac
	needs_file=$ROOT$MANIFEST
	needs_n=
	while IFS="$TAB" read -r n path rest <&3; do
		[ "$path" != "$MANIFEST" ] || needs_n=${needs_n:-$n}
	done 3<"$D/files"
	if [ -n "$needs_n" ] && [ -s "$D/after/$needs_n" ]; then needs_file=$D/after/$needs_n; fi
	for needs_check in manifest runtime disk image; do
		"lacks_$needs_check" "$needs_file"
		[ "$LACK" != yes ] || $1 "$LACKS"
	done
}

# blame: BLAME is what of it does not work now, "" for nothing that is known
blame() {
	BLAME=
	for blame_check in kubelet runtime disk; do
		"lacks_$blame_check"
		if [ "$LACK" = yes ]; then
			BLAME=$LACKS
			return 0
		fi
	done
}

# attend: while something is waited for, tell once that kubelet does not run, which it is waited for then; asked every 15 s
attend() {
	[ -z "${ATTENDED:-}" ] || return 0
	now
	if [ -z "${ATTEND_AT:-}" ]; then
		span 15
		ATTEND_AT=$((NOW + SPAN))
	fi
	[ "$NOW" -ge "$ATTEND_AT" ] || return 0
	ATTEND_AT=
	lacks_kubelet
	[ "$LACK" = yes ] || return 0
	ATTENDED=yes
	journal note "$LACKS"
}

# show_lacks: what of it does not work, for `inspect`
show_lacks() {
	MANIFEST=
	for show_file in "$ROOT$PODS"/kube-apiserver.yaml "$ROOT$PODS"/etcd.yaml; do
		if [ -f "$show_file" ]; then MANIFEST=${show_file#"$ROOT"}; fi
	done
	# no pod of a control plane is here, so nothing has to be brought back
	[ -n "$MANIFEST" ] || return 0
	for show_check in kubelet manifest runtime disk; do
		[ "$show_check" != runtime ] || have crictl || continue
		"lacks_$show_check"
		if [ "$LACK" = yes ]; then answer lacks "$show_check" ":$LACKS"; fi
	done
	have crictl || return 0
	for show_file in "$ROOT$PODS"/kube-apiserver.yaml "$ROOT$PODS"/etcd.yaml; do
		if [ -f "$show_file" ] && inside "${show_file#"$ROOT"}"; then
			lacks_image "$show_file"
			if [ "$LACK" = yes ]; then answer lacks image ":$LACKS"; fi
		fi
	done
}

# --- what ended ----------------------------------------------------------------------------------------------------------

# last_words: of FOUND, ENDED_UID is the pod of the container that ended last, and WORDS what its program said of why it
# ended badly, one line; "" where nothing of that is known
last_words() {
	WORDS= ENDED_UID=
	case $FOUND in *' EXITED '*) ;; *) return 0 ;; esac
	words_line=$(printf '%s' "$FOUND" | awk '$3 == "EXITED"' | sort -t' ' -k7,7 | tail -n 1)
	[ -n "$words_line" ] || return 0
	read -r words_id words_name words_state words_attempt words_exit words_started words_finished ENDED_UID words_log <<LIST
$words_line
LIST
	if [ "$words_exit" != 0 ] && inside "$words_log" && [ -r "$ROOT$words_log" ]; then
		WORDS=$(tail -c 65536 "$ROOT$words_log" 2>/dev/null | tail -n 200 |
			grep -E '"command failed" err=|(^| )Error: |flag provided but not defined|invalid value .* for flag|failed to verify flags|"level":"(fatal|panic)"|(^| )panic: ' | tail -n 1 |
			sed 's/.*"command failed" err=//; s/^[0-9T:.Z+-]* std[a-z]* [FP] //' | tr '\t\r' '  ' | cut -c1-400)
	fi
}

# mends: whether CONTAINER is down because of its tracing configuration, by its program's own last words; where it left
# none, by what the plan found (`mends` in its meta: what it changes keeps this program from starting). WHY else.
mends() {
	mends_running=$(wc -l <"$D/old")
	last_words
	if [ "$mends_running" -gt 1 ]; then
		WHY="there is not exactly one running $CONTAINER here: it is restarting or broken"
		return 1
	fi
	meta mends
	case $WORDS in
	*[Tt]rac*)
		# one that runs may be about to end so again, or be unwell for another reason since
		if [ "$mends_running" -eq 0 ] || [ "$META" = yes ]; then return 0; fi
		;;
	'')
		if [ "$mends_running" -eq 0 ] && [ "$META" = yes ]; then return 0; fi
		;;
	esac
	WHY="there is not exactly one running $CONTAINER here: it is restarting or broken${WORDS:+ ($WORDS)}, and not by its tracing configuration, so a change of that is no way out"
	return 1
}
