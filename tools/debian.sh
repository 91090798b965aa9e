# shellcheck shell=bash
# Sourced: another Debian in a folder, from where this machine's own apt takes its
# packages and with the same settings.

# Lines "site release" of this machine's sources of Debian.
sources() {
	# The braces are apt's.
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(ORIGIN) $(SITE) $(RELEASE)' 'Created-By: Packages' |
		sed -n 's/^Debian //p' | sort -u
}

# The settings of apt that say how to reach its sources.
settings() {
	apt-config dump | grep -E '^Acquire::(http|https|Retries)' || true
}

# bootstrap SUITE FOLDER: a small Debian, whole or not at all.
bootstrap() {
	local suite=$1 root=$2 here site
	# shellcheck source=/dev/null
	here=$(. /etc/os-release && echo "$VERSION_CODENAME")
	site=$(sources | awk -v here="$here" '$2 == here { print $1; exit }')
	[ -n "$site" ] || { echo "${0##*/}: apt has no source of Debian" >&2; exit 1; }
	eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
	export http_proxy https_proxy
	echo "${0##*/}: making $root"
	rm -rf "$root.new"
	mkdir -p "$root.new"
	debootstrap --variant=minbase --include=ca-certificates,iproute2 "$suite" "$root.new" "$site"
	settings >"$root.new/etc/apt/apt.conf.d/10host"
	sources | sed -n "s/^\([^ ]*\) $here\(-updates\|-security\|\)$/deb \1 $suite\2 main/p" \
		>"$root.new/etc/apt/sources.list"
	mv "$root.new" "$root"
}
