# install: everything below $(DESTDIR)$(PREFIX), units and samples included
#
# Configuration goes to SYSCONFDIR and is never overwritten.  Nothing is started
# and nothing of Postfix or Dovecot is touched: deploy/postfix/wire does that.

SHARE   = $(DESTDIR)$(PREFIX)/share/postern
SYSTEMD = $(DESTDIR)$(PREFIX)/lib/systemd
# What a unit or a script says of paths, as it is installed.
# The delimiter is not |, which separates the names.
RELOCATE = sed -e 's,/usr/bin/\(milter-dkim\|policyd-ratelimit\|lmtp-indexer\|quotad\|postern\),$(PREFIX)/bin/\1,g' \
	-e 's,/etc/postern/,$(SYSCONFDIR)/,g'

.PHONY: install
install: all docs
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(DOVECOT_MODULES) $(SYSTEMD)/system \
		$(SYSTEMD)/catalog $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d \
		$(DESTDIR)$(SYSCONFDIR) $(SHARE)/sql $(SHARE)/examples $(SHARE)/deploy
	install -m 755 $(BINS:%=$(BUILD)/bin/%) $(DESTDIR)$(PREFIX)/bin
	for p in $(PLUGINS); do install -m 644 $(BUILD)/lib/$$p.so $(DESTDIR)$(DOVECOT_MODULES); done
	for u in deploy/systemd/*.service deploy/systemd/*.socket deploy/systemd/*.timer; do \
		[ ! -e $$u ] || $(RELOCATE) $$u >$(SYSTEMD)/system/$${u##*/}; done
	$(RELOCATE) deploy/sysusers.d/postern.conf >$(DESTDIR)$(PREFIX)/lib/sysusers.d/postern.conf
	$(RELOCATE) deploy/tmpfiles.d/postern.conf >$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/postern.conf
	install -m 644 $(BUILD)/postern.catalog $(SYSTEMD)/catalog
	for m in $(MAN_PAGES); do s=$${m##*.}; install -d $(DESTDIR)$(PREFIX)/share/man/man$$s; \
		install -m 644 $$m $(DESTDIR)$(PREFIX)/share/man/man$$s; done
	for c in deploy/conf/*.conf; do t=$(DESTDIR)$(SYSCONFDIR)/$${c##*/}; \
		[ -e $$t ] || { $(RELOCATE) $$c >$$t; chmod 640 $$t; }; done
	install -m 644 $(DOC_NAMES:%=$(BUILD)/conf/%.conf) $(SHARE)/examples
	install -m 644 sql/*.sql $(SHARE)/sql
	cp -R deploy/postfix deploy/dovecot deploy/mariadb $(SHARE)/deploy

# deb: the Debian packages of this tree, into build/deb (root, or with deps.txt and deps-deb.txt of tools installed)
.PHONY: deb deb-tree deb-build
DEB = build/deb
DEB_TREE = $(DEB)/postern-$(VERSION)
deb: deb-tree
	$(Q)[ "$$(id -u)" != 0 ] || { $(DEPS) install && $(DEPS) install tools/deps-deb.txt; }
	$(Q)$(MAKE) --no-print-directory DEB=$(DEB) deb-build
deb-tree:
	$(Q)rm -rf $(DEB) && mkdir -p $(DEB_TREE)
	$(Q)git ls-files -z | xargs -0 cp --parents -t $(DEB_TREE)
deb-build:
	$(Q)cd $(DEB_TREE) && env -u MAKEFLAGS -u MAKELEVEL dpkg-buildpackage -b -us -uc
	$(Q)lintian --fail-on error,warning $(DEB)/*.changes
	$(Q)ls -1 $(DEB)/*.deb
