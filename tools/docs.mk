# What is generated from options.def, metrics.def and events.def of each daemon
# by tools/docgen.c: man pages, sample configurations, the journald catalog.

DOC_DIR_milter-dkim       := milter-dkim
DOC_DIR_policyd-ratelimit := policyd-ratelimit
DOC_DIR_lmtp-indexer      := lmtp-indexer
DOC_DIR_quotad            := dovecot-plugin-quota/quotad
DOC_DIR_postern           := postern
DOC_NAMES := $(foreach n,milter-dkim policyd-ratelimit lmtp-indexer quotad postern,\
	$(if $(wildcard $(DOC_DIR_$(n))/options.def),$(n)))

# Pages with tables are NAME.SECTION.in, others NAME.SECTION.
MAN_WITH_TABLES := $(foreach p,$(patsubst docs/man/%.in,%,$(wildcard docs/man/*.in)),\
	$(if $(filter $(basename $(p)),$(DOC_NAMES)),$(p)))
MAN_PAGES := $(MAN_WITH_TABLES:%=$(BUILD)/man/%) \
	$(patsubst docs/man/%,$(BUILD)/man/%,$(wildcard docs/man/*.[1-8]))

# docs: man pages, sample configurations and the catalog, into build/
.PHONY: docs
docs: $(MAN_PAGES) $(DOC_NAMES:%=$(BUILD)/conf/%.conf) $(BUILD)/postern.catalog

doc_table = $(if $(wildcard $(DOC_DIR_$(1))/$(2).def),-D$(3)='"$(DOC_DIR_$(1))/$(2).def"')
define docgen_rule
$(BUILD)/docgen/$(1): tools/docgen.c $(wildcard $(DOC_DIR_$(1))/*.def lib/run/*.def) $(call archives,run base)
	@mkdir -p $$(@D)
	$$(call say,DOCGEN,$(1))$$(CC) $$(CPPFLAGS_ALL) $$(CPPFLAGS_$(1)) $$(CSTD) $$(OPT) $$(WARN) $$(HARDEN) $$(LDFLAGS_ALL) -DDOC_NAME='"$(1)"' \
		$$(call doc_table,$(1),options,DOC_OPTIONS) $$(call doc_table,$(1),metrics,DOC_METRICS) \
		$$(call doc_table,$(1),events,DOC_EVENTS) -o $$@ $$< $$(filter %.a,$$^)
$(BUILD)/conf/$(1).conf: $(BUILD)/docgen/$(1)
	@mkdir -p $$(@D)
	$(Q)$$< conf >$$@
endef
$(foreach n,$(DOC_NAMES),$(eval $(call docgen_rule,$(n))))

# The daemon of a page is its name up to the section.
.SECONDEXPANSION:
$(BUILD)/man/%: docs/man/%.in docs/man/daemon.inc $$(BUILD)/docgen/$$(basename $$*)
	@mkdir -p $(@D)
	$(call say,MAN,$@)$(BUILD)/docgen/$(basename $*) man $< >$@
$(BUILD)/man/%: docs/man/%
	@mkdir -p $(@D)
	$(Q)cp $< $@

$(BUILD)/postern.catalog: $(DOC_NAMES:%=$(BUILD)/docgen/%)
	$(Q)$< catalog-common >$@; for d in $^; do $$d catalog; done >>$@
