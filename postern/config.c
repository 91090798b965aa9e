/* The option table of the `postern` command; immutable. */
#include "postern/config.h"

#define CONF_STRUCT struct postern_config
static const struct conf_option options[] = {
#define OPTION CONF_ROW
#include "postern/options.def"
#undef OPTION
};

const struct conf_spec postern_conf = {
	.options = options,
	.count = sizeof(options) / sizeof(options[0]),
	.struct_size = sizeof(struct postern_config),
};
